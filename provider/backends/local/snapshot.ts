/** Taking a snapshot of a running VM: all of it, or nothing is left; and the VM runs on as it did. */

import { mkdir, open, readdir, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { MicroVmError, messageOf } from "../../errors.js";
import { copySparse, imageStamp } from "../../host/disk-copy.js";
import { withFileLock } from "../../host/file-lock.js";
import { snapshotFiles, vmPaths } from "../../host/paths.js";
import { isAlive, thisProcess } from "../../host/process.js";
import type { VmRecord } from "../../host/record.js";
import { filesOf, keepSnapshot, type SnapshotRecord, snapshotText } from "../../host/snapshots.js";
import { raiseFileSizeLimit } from "../../host/spawn.js";
import { isAbsent, storageError, syncDirectory, writeNewFile } from "../../host/storage.js";
import type { SnapshotRequest } from "../backend.js";
import { type Finding, findingOf, ownRecord } from "./observe.js";
import { attachedSocketOf, vmmsOf } from "./runs.js";
import { fileSizeLimitMiB } from "./start.js";
import type { TakenSnapshot, Vmm, VmmControl, VmmSnapshots } from "./vmm.js";

const BYTES_PER_MIB = 1_048_576;

/** How long another snapshot of the same VM may take, in seconds. */
const LOCK_SECONDS = 300;

/** How long a VMM may go on writing for a caller that was killed, in seconds. */
const WRITING_SECONDS = 120;
const POLL_MILLISECONDS = 200;

/** Room beyond the guest's memory for the state of its devices. */
const ROOM_MIB = 256;

type SnapshotFiles = ReturnType<typeof snapshotFiles>;

/** Whose snapshot is taken, and by what. */
interface Place {
  readonly vmm: Vmm;
  readonly snapshots: VmmSnapshots;
  readonly request: SnapshotRequest;
  readonly record: VmRecord;
}

/**
 * Pauses the guest, lets the VMM write it out, copies the stateful disk beside it, and lets the guest run on, also when any of
 * that failed. The snapshot appears under its id when all of it is on the disk.
 *
 * Killed at any instant, it leaves at most a paused guest, which the next update or snapshot resumes, since the record says what it
 * is to be; and an unfinished folder of the VM, which the next snapshot removes.
 *
 * @throws MicroVmError `invalid-input` for a VM that has no guest to be taken, `not-supported`, `vmm-failed`, `state-directory`,
 * `interrupted`, and as `observe`.
 */
export async function takeSnapshot(vmm: Vmm, request: SnapshotRequest): Promise<SnapshotRecord> {
  const { stateDirectory, vmName } = request.reference;
  const snapshots = snapshotsOf(vmm);
  const record = await takable(vmm, request);
  const { snapshots: folder } = vmPaths(stateDirectory, vmName);
  try {
    // There since the VMM has started, where that must not write anywhere else.
    await mkdir(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw storageError(error, `make ${folder}`);
  }
  const busy = (): Error =>
    new MicroVmError(
      "create-in-progress",
      `another snapshot of ${vmName} has been under way for ${LOCK_SECONDS} s; wait until it is done, then run again`,
    );
  return await withFileLock(folder, LOCK_SECONDS, busy, async () => {
    const prepared = join(folder, request.id);
    try {
      await clear(folder);
      await assertRoom(folder, record);
      const taken = await prepare({ vmm, snapshots, request, record }, prepared);
      await keepSnapshot(stateDirectory, request.id, prepared);
      return taken;
    } finally {
      await rm(prepared, { recursive: true, force: true });
    }
  });
}

/** @throws MicroVmError `not-supported` */
function snapshotsOf({ name, snapshots }: Vmm): VmmSnapshots {
  if (snapshots !== undefined) return snapshots;
  throw new MicroVmError(
    "not-supported",
    `expected a VM of the back end "cloud-hypervisor", which takes snapshots; ${name} takes none here`,
    { input: "vmId" },
  );
}

/** The record of a VM that a snapshot can be taken of. */
async function takable(vmm: Vmm, { reference }: SnapshotRequest): Promise<VmRecord> {
  const { vmName, instance, stateDirectory } = reference;
  const refuse = (found: string): MicroVmError =>
    new MicroVmError("invalid-input", `expected a VM that runs, found ${vmName}/${instance} ${found}`, {
      input: "vmId",
    });
  const found = await ownRecord(reference);
  if (found === undefined) throw refuse("gone");
  if (attachedSocketOf(found.record.settings) !== undefined) throw attachedVm(found.record);
  const { link } = found.record.boot;
  if (link.kind === "user" && link.passt !== undefined) throw passtVm(found.record);
  const state = await findingAfterSnapshot(vmm, stateDirectory, found.record);
  if (state !== "running" && state !== "paused") throw refuse(state);
  if (!found.record.proved) throw refuse("without a proof of its root: run pulumi up for it first");
  return found.record;
}

function attachedVm({ vmName }: VmRecord): MicroVmError {
  return new MicroVmError(
    "not-supported",
    `expected a VM whose Cloud Hypervisor this provider starts, and ${vmName} is in a VMM of somebody else's (backend.apiSocket): it takes no snapshots of those`,
    { input: "vmId" },
  );
}

function passtVm({ vmName }: VmRecord): MicroVmError {
  return new MicroVmError(
    "not-supported",
    `expected a VM on a tap, and ${vmName} is on a user network (network.passt), with which no snapshot is taken`,
    { input: "vmId" },
  );
}

/**
 * What is found of a VM once its VMM is done with a snapshot whose caller was killed: until then it answers nobody.
 */
export async function findingAfterSnapshot(
  vmm: Vmm,
  stateDirectory: string,
  record: VmRecord,
): Promise<Finding> {
  const { snapshots } = vmPaths(stateDirectory, record.vmName);
  const deadline = performance.now() + WRITING_SECONDS * 1000;
  for (;;) {
    const found = await findingOf(vmm, stateDirectory, record);
    if (found !== "unreachable" || performance.now() >= deadline) return found;
    if (!(await isBegun(snapshots))) return found;
    await delay(POLL_MILLISECONDS);
  }
}

/** Whether the folder holds a snapshot that is not complete. */
async function isBegun(folder: string): Promise<boolean> {
  try {
    return (await readdir(folder)).length > 0;
  } catch (error) {
    if (isAbsent(error)) return false;
    throw storageError(error, `list ${folder}`);
  }
}

/** Removes what a killed call has left. The folder itself stays: it is the one that the VMM may write to. */
async function clear(folder: string): Promise<void> {
  try {
    for (const name of await readdir(folder)) await rm(join(folder, name), { recursive: true, force: true });
  } catch (error) {
    throw storageError(error, `remove leftovers in ${folder}`);
  }
}

/** A file system that runs full takes the guest's own disk and console with it. */
async function assertRoom(folder: string, { boot }: VmRecord): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const free = Math.floor((bavail * bsize) / BYTES_PER_MIB);
  if (free >= boot.memoryMiB) return;
  throw new MicroVmError(
    "state-directory",
    `a snapshot holds the guest's memory, ${boot.memoryMiB} MiB, and the file system of ${folder} has ${free} MiB left; free some space on it`,
  );
}

/** Makes the snapshot in a folder of its own, and has all of it on the disk. */
async function prepare(place: Place, prepared: string): Promise<SnapshotRecord> {
  const { request, record } = place;
  const { id, owner, signal } = request;
  const files = snapshotFiles(prepared);
  try {
    await mkdir(files.vmm, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw storageError(error, `make ${files.vmm}`);
  }
  const taken = await whilePaused(place, files);
  const { vmName, instance, boot } = record;
  const snapshot: SnapshotRecord = {
    version: 1,
    id,
    owner,
    creator: thisProcess(),
    takenAt: new Date().toISOString(),
    vmName,
    instance,
    boot,
    ...taken,
    ...(boot.root.type === "disk" ? { rootfsStamp: await imageStamp(boot.root.rootfs) } : {}),
  };
  try {
    for (const path of filesOf(files, snapshot)) await syncFile(path);
    await syncDirectory(files.vmm);
    await writeNewFile(files.record, snapshotText(snapshot));
    await syncDirectory(prepared);
  } catch (error) {
    throw storageError(error, `write ${prepared}`);
  }
  stopIfInterrupted(signal);
  return snapshot;
}

/** What must happen while the guest stands still. */
async function whilePaused(place: Place, files: SnapshotFiles): Promise<TakenSnapshot> {
  const { vmm, request, record } = place;
  const { vmName, controlSocket, boot, settings } = record;
  const control = await vmm.connect(controlSocket);
  let failure: { readonly error: unknown } | undefined;
  let taken: TakenSnapshot | undefined;
  try {
    try {
      await control.pause();
      stopIfInterrupted(request.signal);
      taken = await writeMemory(place, files);
      stopIfInterrupted(request.signal);
      if (boot.statefulDiskMiB > 0) await copyDisk(place, files);
      if ((await control.guestState()) !== "paused") {
        const what = `${vmName} was resumed by something else while its disk was being copied; run again`;
        throw new MicroVmError("vmm-failed", what);
      }
    } catch (error) {
      failure = { error };
    }
    // Not what it was found as: a killed call may have left it paused.
    if (settings.powerState === "running") await resume(control, vmName, failure?.error);
  } finally {
    control.close();
  }
  if (failure !== undefined) throw failure.error;
  if (taken === undefined) throw new Error("a snapshot was taken or failed");
  return taken;
}

/** The VMM writes as large a file as the guest's memory: its limit, which keeps a guest's console small, is raised for that. */
async function writeMemory({ snapshots, record }: Place, files: SnapshotFiles): Promise<TakenSnapshot> {
  const { boot, controlSocket } = record;
  const [identity] = vmmsOf(record);
  if (identity === undefined) throw new MicroVmError("vmm-failed", `${record.vmName} has just ended`);
  const usual = fileSizeLimitMiB(boot);
  await raiseFileSizeLimit(identity, Math.max(usual, (boot.maxMemoryMiB ?? boot.memoryMiB) + ROOM_MIB));
  try {
    return await snapshots.take(controlSocket, files.vmm);
  } finally {
    if (isAlive(identity)) await raiseFileSizeLimit(identity, usual);
  }
}

/** Blocks are shared where the file system can, holes stay holes. */
async function copyDisk({ request, record }: Place, files: SnapshotFiles): Promise<void> {
  const { statefulDisk } = vmPaths(request.reference.stateDirectory, record.vmName);
  try {
    await copySparse(statefulDisk, files.statefulDisk, request.signal);
  } catch (error) {
    stopIfInterrupted(request.signal);
    throw error;
  }
}

async function resume(control: VmmControl, vmName: string, failure: unknown): Promise<void> {
  try {
    await control.resume();
  } catch (error) {
    const before = failure === undefined ? "" : `${messageOf(failure)}\n`;
    throw new MicroVmError(
      "vmm-failed",
      `${before}${vmName} is left paused: ${messageOf(error)}; the next pulumi up resumes it`,
      { cause: error },
    );
  }
}

async function syncFile(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function stopIfInterrupted(signal: AbortSignal): void {
  if (!signal.aborted) return;
  throw new MicroVmError(
    "interrupted",
    "the Pulumi engine ended before the snapshot was complete; nothing is left of it",
  );
}
