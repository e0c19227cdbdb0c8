/** A VM on a state directory of its own, whose hypervisor is a stand-in process. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { onTestFinished } from "vitest";

import type { SnapshotRequest } from "../../../../provider/backends/backend.js";
import { claimName } from "../../../../provider/host/claim.js";
import { vmPaths } from "../../../../provider/host/paths.js";
import { identify } from "../../../../provider/host/process.js";
import { type VmRecord, writeRecord } from "../../../../provider/host/record.js";
import { openStateDirectory } from "../../../../provider/host/state-directory.js";
import { temporaryFolder } from "../../host/folders.js";
import { sampleRecord, sampleWork } from "../../host/sample-record.js";

export const DISK_MIB = 64;

/** The state directory, its VM, and what its hypervisor was asked. */
export interface SnapshotBed {
  readonly stateDirectory: string;
  readonly record: VmRecord;
  readonly socket: string;
  /** Calls so far, without `vmm.ping`. */
  readonly calls: () => Promise<string[]>;
  request(id: string, changes?: Partial<SnapshotRequest>): SnapshotRequest;
}

/** Starts a stand-in; `fails` as it takes them. */
export async function startStandIn(socket: string, state: string, fails: readonly string[] = []) {
  const program = join(__dirname, "stand-in-snapshots.cjs");
  const child = spawn(process.execPath, [program, socket, state, ...fails], { stdio: "inherit" });
  onTestFinished(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  });
  while (!existsSync(socket)) await new Promise((resolve) => setTimeout(resolve, 5));
  const identity = identify(child.pid ?? 0);
  if (identity === undefined) throw new Error("the stand-in has ended");
  return identity;
}

/** A VM that runs, with a stateful disk that is nearly all holes. */
export async function makeSnapshotBed(
  options: {
    readonly state?: string;
    readonly fails?: readonly string[];
    readonly record?: Partial<VmRecord>;
    readonly folder?: string;
  } = {},
): Promise<SnapshotBed> {
  const folder = options.folder ?? (await temporaryFolder());
  const stateDirectory = join(folder, "state");
  const socket = join(folder, "0123456789abcdef.sock");
  await openStateDirectory(stateDirectory);
  const vmm = await startStandIn(socket, options.state ?? "Running", options.fails);
  const sample = sampleRecord({ instance: "0123456789abcdef", controlSocket: socket });
  await claimName(stateDirectory, sample, sampleWork());
  const paths = vmPaths(stateDirectory, sample.vmName);
  const record: VmRecord = {
    ...sample,
    phase: "ready",
    vmm,
    proved: true,
    boot: {
      ...sample.boot,
      statefulDiskMiB: DISK_MIB,
      disks: [{ path: paths.statefulDisk, numQueues: 1 }],
      memoryMiB: 1,
    },
    settings: { ...sample.settings, backend: { type: "cloud-hypervisor" } },
    ...options.record,
  };
  await writeRecord(stateDirectory, record);
  await mkdir(paths.snapshots, { mode: 0o700 });
  for (const file of [paths.kernel, paths.initramfs, paths.consoleLog]) await writeFile(file, "");
  await writeFile(paths.statefulDisk, "on the disk", { mode: 0o600 });
  await truncate(paths.statefulDisk, DISK_MIB * 1_048_576);
  const { vmName, instance, owner } = record;
  return {
    stateDirectory,
    record,
    socket,
    calls: async () => {
      const told = await readFile(`${socket}.calls`, "utf8").catch(() => "");
      return told.split("\n").filter((name) => name !== "" && name !== "vmm.ping" && name !== "vm.info");
    },
    request: (id, changes = {}) => ({
      id,
      reference: { vmName, instance, stateDirectory },
      owner,
      ...sampleWork(),
      ...changes,
    }),
  };
}
