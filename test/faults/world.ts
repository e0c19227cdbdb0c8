/** All that a VM has on a host, looked at from outside: processes, files, sockets, leases, and what its guest has closed. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { endProcess, findByArgument, type ProcessIdentity } from "../../provider/host/process.js";
import type { Values } from "../../provider/plan/fields.js";
import { type NfsServer, startNfsServer, whyNoNfsServer } from "../lab/nfs.js";
import { isOnPath } from "../lab/programs.js";
import { closedFiles, lostFiles, makeWritingGuest } from "./guest.js";
import type { Resource } from "./provider-process.js";

/** The kernel that boots soonest of those that the lab has. */
export function fastestKernel(): string | undefined {
  return process.env["MICROVM_LAB_NFS_KERNEL"] ?? process.env["MICROVM_LAB_KERNEL"];
}

/** Why no world can be had here, as the reason of a skipped test; undefined when one can. */
export function whyNoWorld(): string | undefined {
  if (!isOnPath("qemu-system-x86_64")) return "qemu-system-x86_64 is not installed";
  return whyNoNfsServer() ?? (fastestKernel() === undefined ? "MICROVM_LAB_KERNEL is not set" : undefined);
}

/** What should be there of the VM. */
export interface Expected {
  readonly resource: Resource | undefined;
  readonly state: "running" | "paused" | "stopped" | "gone";
  /** Host ports that the program forwards. */
  readonly ports: readonly number[];
}

const FILES = ["vm.json", "kernel", "initramfs", "console.log", "console.log.1", "vmm.log", "stateful.img"];

/** A host of its own: state directory, sockets, NFS server, a guest's root. */
export class World {
  readonly vmName = "vm-faults";
  readonly #closed = new Set<string>();

  private constructor(
    readonly folder: string,
    readonly server: NfsServer,
    readonly kernel: string,
  ) {}

  static async open(kernel: string): Promise<World> {
    const folder = await mkdtemp(join(tmpdir(), "microvm-faults-"));
    await mkdir(join(folder, "run"), { mode: 0o700 });
    await makeWritingGuest(join(folder, "root"));
    const server = await startNfsServer({ exports: [{ path: join(folder, "root") }] });
    return new World(folder, server, kernel);
  }

  /** Removes every VM, as a test that failed may have left one. */
  async clear(): Promise<void> {
    for (const vmm of this.processes()) await endProcess(vmm, 0);
    for (const folder of [this.stateDirectory, join(this.folder, "run/pulumi-microvm")]) {
      for (const name of namesIn(folder)) await rm(join(folder, name), { recursive: true, force: true });
    }
  }

  async close(): Promise<void> {
    for (const vmm of this.processes()) await endProcess(vmm, 0);
    await this.server.stop();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** Sockets, leases and state of a provider process. */
  get env(): NodeJS.ProcessEnv {
    return { XDG_RUNTIME_DIR: join(this.folder, "run"), XDG_STATE_HOME: join(this.folder, "state") };
  }

  get root(): string {
    return join(this.folder, "root");
  }

  get stateDirectory(): string {
    return join(this.folder, "state", "pulumi-microvm");
  }

  /** A path in the VM's folder. */
  vmPath(name: string): string {
    return join(this.stateDirectory, this.vmName, name);
  }

  /** What the program gives of the VM. */
  program(changes: Values = {}): Values {
    return {
      owner: { organization: "organization", urn: "urn:pulumi:dev::faults::vm", program: "/faults" },
      vmName: this.vmName,
      kernel: this.kernel,
      useNfsRoot: true,
      nfsServer: "127.0.0.1",
      nfsPort: this.server.nfsPort,
      nfsMountPort: this.server.mountPort,
      nfsPath: this.root,
      memoryMiB: 192,
      statefulDiskMiB: 16,
      shutdownTimeoutSeconds: 30,
      readiness: { console: "^guest: ready" },
      preflight: "off",
      ...changes,
    };
  }

  /** Processes with a path of this host in their arguments: VMMs, and whatever is started in front of or beside them. */
  processes(): ProcessIdentity[] {
    return findByArgument(`${this.folder}/state/`);
  }

  /** The record's text, however it is. */
  record(): string {
    return textOf(this.vmPath("vm.json"));
  }

  console(): string {
    return textOf(this.vmPath("console.log")).replaceAll("\r", "");
  }

  /** Names in the state directory. */
  entries(): string[] {
    return namesIn(this.stateDirectory);
  }

  /** Ports that are leased, with the instance that has them. */
  leases(): { readonly port: number; readonly instance: string }[] {
    const leases = join(this.folder, "run/pulumi-microvm/leases");
    return namesIn(leases)
      .filter((group) => !group.startsWith("."))
      .flatMap((group) =>
        namesIn(join(leases, group)).map((address) => {
          const holder = JSON.parse(textOf(join(leases, group, address, "holder.json")) || "{}") as {
            instance?: string;
          };
          return { port: Number(group.split("-")[1]), instance: holder.instance ?? "?" };
        }),
      );
  }

  /** Keeps in mind which files guests have told to be closed, here and in what was moved to `.lost`. */
  noteClosedFiles(): void {
    const lost = join(this.stateDirectory, ".lost");
    const folders = [
      join(this.stateDirectory, this.vmName),
      ...namesIn(lost).map((name) => join(lost, name)),
    ];
    for (const folder of folders) {
      for (const log of ["console.log", "console.log.1"]) {
        for (const name of closedFiles(textOf(join(folder, log)))) this.#closed.add(name);
      }
    }
  }

  /** How many closed files have been found whole so far. */
  found = 0;

  /** What is wrong: too much, too little, or lost. Empty when all is as it should be. */
  async faults({ resource, state, ports }: Expected): Promise<string[]> {
    this.noteClosedFiles();
    const instance = resource?.id.split("/")[1] ?? "?";
    const running = state === "running" || state === "paused";
    const processes = this.processes().map(({ pid }) => pid);
    const expectedPids = running ? [resource?.outputs["pid"]] : [];
    const sockets = namesIn(join(this.folder, "run/pulumi-microvm")).filter((name) => name !== "leases");
    const known = new Set([...FILES, `confirmed-${instance}`]);
    const strangeFiles = namesIn(join(this.stateDirectory, this.vmName)).filter((name) => !known.has(name));
    const strangeEntries = this.entries().filter(
      (name) =>
        !["host-id", ".lost", ".cache", ".forgotten"].includes(name) &&
        (state === "gone" || name !== this.vmName),
    );
    const leases = this.leases();
    const expectedLeases = ports.map((port) => ({ port, instance }));
    const lost = await lostFiles(this.root, this.#closed);
    this.found += this.#closed.size - lost.length;
    this.#closed.clear();
    return [
      ...differs("processes", processes, expectedPids),
      ...differs("sockets", sockets, running ? [`${instance}.sock`] : []),
      ...differs("leases", leases, state === "gone" ? [] : expectedLeases),
      ...differs("files", strangeFiles, []),
      ...differs("in the state directory", strangeEntries, []),
      ...differs("closed files that were lost", lost, []),
    ];
  }
}

function differs(what: string, found: unknown, expected: unknown): string[] {
  const [is, should] = [JSON.stringify(found), JSON.stringify(expected)];
  return is === should ? [] : [`${what}: found ${is}, expected ${should}`];
}

function namesIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).toSorted() : [];
}

/** Empty where there is no such file, or it has just been renamed. */
function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
