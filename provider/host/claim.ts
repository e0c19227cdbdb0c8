/** Taking a name on this host, for good or not at all. */

import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import type { Owner, Work } from "../backends/backend.js";
import { MicroVmError } from "../errors.js";
import { noticeText } from "../notices.js";
import { isConfirmed } from "./confirm.js";
import { clearForgotten } from "./forgotten.js";
import { releaseLeases } from "./lease.js";
import { moveToLost } from "./lost.js";
import { detachNetwork } from "./network/index.js";
import { vmDirectory } from "./paths.js";
import { endProcess, findByArgument, isAlive } from "./process.js";
import { isSameOwner, readRecord, recordText } from "./record.js";
import type { VmRecord } from "./record.js";
import { removeSockets } from "./runtime-directory.js";
import { vmmsIn } from "./remains.js";
import { preparationDirectory, removeVmDirectory, sweep } from "./remove.js";
import { isAbsent, isOccupied, storageError, syncDirectory, writeNewFile } from "./storage.js";

/** What a test may shorten. */
export interface ClaimOptions {
  /** How long a live creator of the same resource may take to end or undo, in seconds; 15 by default. */
  readonly waitSeconds?: number;
  /** Ends the guest of a VM that is reclaimed, where that takes more than to end its process: it may be in a VMM of somebody else's. */
  readonly endGuest?: (lost: VmRecord) => Promise<void>;
}

const POLL_MILLISECONDS = 50;

/** How long SIGTERM may take with a VMM that nobody claims, in seconds. */
const GRACE_SECONDS = 5;

/**
 * Takes `record.vmName` for `record.instance` and writes the record, both in one step: the folder is prepared
 * aside and renamed into place (rename(2) onto a folder that is not empty fails). The state directory is open
 * already.
 *
 * A record of the same name is reclaimed only if it has the same owner, was never confirmed, and its creator is
 * dead: its VMM is ended, its leases are given back, its folder moves to `STATE/.lost`, and a notice says so.
 *
 * @throws MicroVmError `create-in-progress` when a live creator of the same resource goes on for too long,
 * `name-taken` when the VM is anybody else's, `record-unreadable`, `state-directory`, and `interrupted` when the
 * work is aborted. The name is not taken then, and nothing is left.
 */
export async function claimName(
  stateDirectory: string,
  record: VmRecord,
  work: Work,
  options: ClaimOptions = {},
): Promise<void> {
  const directory = vmDirectory(stateDirectory, record.vmName);
  await sweep(stateDirectory);
  const prepared = preparationDirectory(stateDirectory, record.instance);
  try {
    await mkdir(prepared, { mode: 0o700 });
    await writeNewFile(join(prepared, "vm.json"), recordText(record));
    await syncDirectory(prepared);
    const deadline = performance.now() + (options.waitSeconds ?? 15) * 1000;
    let waitsFor: string | undefined;
    throwIfAborted(work);
    while (!(await moved(prepared, directory))) {
      const other = await makeWay(stateDirectory, record, work, options);
      if (other !== undefined) {
        if (performance.now() >= deadline) throw inProgress(other);
        if (waitsFor !== other.instance)
          work.notice(noticeText("waiting-for-creator", { vm: record.vmName, pid: other.creator.pid }));
        waitsFor = other.instance;
        await delay(POLL_MILLISECONDS);
      }
      throwIfAborted(work);
    }
    await syncDirectory(stateDirectory);
    await assertNobodyElse(stateDirectory, record);
    await clearForgotten(stateDirectory, record.vmName);
  } catch (error) {
    await rm(prepared, { recursive: true, force: true });
    throw storageError(error, `make ${directory}`);
  }
}

/**
 * Two guests on one writable root destroy it: a VMM that outlived its record (somebody removed the folder, or forgot the VM) must
 * end first. Whose it is cannot be told any more, so a person decides. Looked at once the name is ours: nothing new can start here.
 */
async function assertNobodyElse(stateDirectory: string, { vmName, instance }: VmRecord): Promise<void> {
  const [stray] = vmmsIn(stateDirectory, vmName);
  if (stray === undefined) return;
  await removeVmDirectory(stateDirectory, vmName, instance);
  throw new MicroVmError(
    "name-taken",
    `process ${stray.pid} still runs an earlier VM ${vmName} of which the record is gone, perhaps on the same root; ` +
      `end it with \`kill ${stray.pid}\`, then run again`,
    { input: "vmName" },
  );
}

async function moved(prepared: string, directory: string): Promise<boolean> {
  try {
    await rename(prepared, directory);
    return true;
  } catch (error) {
    if (isOccupied(error)) return false;
    throw error;
  }
}

/**
 * Looks at who has the name, and throws when it is not to be had.
 *
 * @returns The record to wait for; undefined when it is worth another try at once.
 */
async function makeWay(
  stateDirectory: string,
  record: VmRecord,
  work: Work,
  options: ClaimOptions,
): Promise<VmRecord | undefined> {
  const present = await readRecord(stateDirectory, record.vmName);
  if (present === undefined) {
    await assertNoStray(vmDirectory(stateDirectory, record.vmName));
    return undefined;
  }
  if (
    !isSameOwner(present.owner, record.owner) ||
    (await isConfirmed(stateDirectory, present.vmName, present.instance))
  ) {
    throw nameTaken(present, record.owner);
  }
  if (isAlive(present.creator)) return present;
  await reclaim(stateDirectory, present, work, options);
  return undefined;
}

/** Between the failed rename and the look at the record the VM may have been removed; a folder without a record stays. */
async function assertNoStray(directory: string): Promise<void> {
  const content = await readdir(directory).catch((error: unknown) => {
    if (isAbsent(error)) return undefined;
    throw error;
  });
  if (content === undefined || content.length === 0 || content.includes("vm.json")) return;
  throw new MicroVmError(
    "record-unreadable",
    `${directory} is there but holds no record (vm.json), so it is no VM of ours; move it away, or choose another vmName`,
  );
}

/** The VM of a create that was killed: nobody but us can know of it. */
async function reclaim(
  stateDirectory: string,
  lost: VmRecord,
  work: Work,
  { endGuest }: ClaimOptions,
): Promise<void> {
  const recorded = lost.vmm === undefined || !isAlive(lost.vmm) ? [] : [lost.vmm];
  // Its creator may have been killed between the start of the VMM and the record of it.
  const found = recorded.length > 0 ? recorded : findByArgument(lost.controlSocket);
  for (const vmm of found) await endProcess(vmm, GRACE_SECONDS);
  await endGuest?.(lost);
  // Before the record is out of the way: whoever is killed here leaves it to the next claim.
  await removeSockets(lost.controlSocket);
  await detachNetwork(lost.instance, lost.boot.link);
  await releaseLeases(lost.instance);
  const folder = await moveToLost(stateDirectory, lost.vmName, lost.instance);
  if (folder === undefined) return; // another claim of the same resource was faster
  const ended = found.length > 0 ? "was powered off" : "did not run any more";
  work.notice(noticeText("reclaimed", { vm: lost.vmName, created: lost.createdAt, ended, folder }));
}

function nameTaken(present: VmRecord, owner: Owner): MicroVmError {
  const { vmName } = present;
  const text = isSameOwner(present.owner, owner)
    ? `this resource has a VM ${vmName} already (instance ${present.instance}), which this stack's state does not hold; ` +
      `import the lost state again, or remove the VM with \`microvm rm ${vmName}\``
    : `the VM ${vmName} belongs to ${present.owner.urn} of the program in ${present.owner.program}; ` +
      `choose another vmName, or remove that VM with \`microvm rm ${vmName}\``;
  return new MicroVmError("name-taken", text, { input: "vmName" });
}

function inProgress(other: VmRecord): MicroVmError {
  return new MicroVmError(
    "create-in-progress",
    `process ${other.creator.pid} makes the VM ${other.vmName} of the same resource since ${other.createdAt}; ` +
      "wait for that `pulumi up` to end, then run again",
    { input: "vmName" },
  );
}

function throwIfAborted(work: Work): void {
  if (!work.signal.aborted) return;
  throw new MicroVmError(
    "interrupted",
    "the Pulumi engine ended while the VM's name was being taken; run `pulumi up` again",
  );
}
