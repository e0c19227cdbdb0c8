/** What a test with a real guest stands on: a kernel, a guest's root, and an NFS server that serves it. */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type GuestInit, makeGuestRoot } from "./guest.js";
import { type NfsServer, startNfsServer, whyNoNfsServer } from "./nfs.js";
import { isOnPath } from "./programs.js";

/** A guest's root, served. */
export interface Bed {
  /** The exported directory, on this host. */
  readonly directory: string;
  readonly server: NfsServer;
  /** The inputs of a MicroVm that boots from it. */
  readonly inputs: {
    readonly kernel: string;
    readonly useNfsRoot: true;
    readonly nfsServer: string;
    readonly nfsPort: number;
    readonly nfsMountPort: number;
    readonly nfsPath: string;
  };
  /** What guests have written into the root: one line for each boot. */
  boots(): Promise<readonly string[]>;
  /** Ends the server and removes the root. */
  close(): Promise<void>;
}

/** Why no guest can be booted from NFS here, as the reason of a skipped test; undefined when one can. */
export function whyNoBed(): string | undefined {
  if (!process.env["MICROVM_LAB_KERNEL"]) return "MICROVM_LAB_KERNEL is not set";
  if (!isOnPath("qemu-system-x86_64")) return "qemu-system-x86_64 is not installed";
  return whyNoNfsServer();
}

/** Makes a guest's root and serves it on loopback; boots the stock kernel unless another is given. */
export async function makeBed(
  init: GuestInit = "complete",
  kernel = process.env["MICROVM_LAB_KERNEL"] ?? "",
): Promise<Bed> {
  const directory = await mkdtemp(join(tmpdir(), "lab-root-"));
  await makeGuestRoot(directory, init);
  const server = await startNfsServer({ exports: [{ path: directory }] });
  return {
    directory,
    server,
    inputs: {
      kernel,
      useNfsRoot: true,
      nfsServer: "127.0.0.1",
      nfsPort: server.nfsPort,
      nfsMountPort: server.mountPort,
      nfsPath: directory,
    },
    boots: async () => (await readFile(join(directory, "var/boots.txt"), "utf8")).trimEnd().split("\n"),
    close: async () => {
      await server.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Stack configuration that gives inputs to every MicroVm of a program: `microvm:nfsPort` and so on. */
export function configurationOf(
  inputs: Readonly<Record<string, string | number | boolean>>,
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(inputs).map(([name, value]) => [`microvm:${name}`, String(value)]),
  );
}
