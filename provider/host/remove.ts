/** Removing a VM's folder, and what killed processes left in the state directory. */

import { readFileSync, renameSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";

import { MicroVmError } from "../errors.js";
import { instanceIn } from "./confirm.js";
import { absolute, checkedInstance, vmDirectory } from "./paths.js";
import { endProcess, findByArgument, identify } from "./process.js";
import { readRecord } from "./record.js";
import { isAbsent, isOccupied, storageError, syncDirectory } from "./storage.js";

/**
 * Removes the folder of an instance whose process has ended: renamed aside first, so that the name is free or
 * taken, never in between. Idempotent; no effect on another instance. A folder without any record is removed too:
 * a claim never makes one, so it is what is left of this instance.
 *
 * @throws MicroVmError `record-unreadable` when the record is torn: whose folder it is cannot be told;
 * `state-directory` when it cannot be removed.
 */
export async function removeVmDirectory(
  stateDirectory: string,
  vmName: string,
  instance: string,
): Promise<void> {
  const record = await readRecord(stateDirectory, vmName);
  if (record === undefined || record.instance === instance) {
    await removeAs(stateDirectory, vmName, checkedInstance(instance));
  }
  await sweep(stateDirectory);
}

/**
 * Removes a VM of which the record cannot be read: ends the processes that were started with a path inside its
 * folder, then removes the folder. Only for a person who asks for it by name.
 */
export async function removeUnreadable(stateDirectory: string, vmName: string): Promise<void> {
  const directory = vmDirectory(stateDirectory, vmName);
  for (const found of findByArgument(`${directory}/`)) await endProcess(found, 5);
  await removeAs(stateDirectory, vmName, undefined);
  await sweep(stateDirectory);
}

/**
 * The folder in which a claim of this instance by this process is prepared: `.new-INSTANCE-PID-STARTTIME`, so
 * that it can be told whether its maker is alive, whatever is in it.
 */
export function preparationDirectory(stateDirectory: string, instance: string): string {
  const maker = identify(process.pid);
  if (maker === undefined) throw new MicroVmError("host-unusable", "/proc does not show this process");
  return join(stateDirectory, `.new-${checkedInstance(instance)}-${maker.pid}-${maker.startTime}`);
}

/** Removes what killed processes left: folders on their way out, and claims whose maker is dead. */
export async function sweep(stateDirectory: string): Promise<void> {
  try {
    for (const name of await readdir(absolute(stateDirectory))) {
      if (name.startsWith(".removing-") || isOrphanedPreparation(name)) {
        await removeTree(join(stateDirectory, name));
      }
    }
  } catch (error) {
    if (isAbsent(error)) return; // no state directory, so nothing is left in it
    throw storageError(error, `remove leftovers in ${stateDirectory}`);
  }
}

/** Removes files of a VM that a killed process had begun to write and not put in their place. Only while nobody writes there. */
export async function sweepUnfinished(stateDirectory: string, vmName: string): Promise<void> {
  const directory = vmDirectory(stateDirectory, vmName);
  try {
    for (const name of await readdir(directory)) {
      if (name.endsWith(".tmp")) await rm(join(directory, name), { force: true });
    }
  } catch (error) {
    throw storageError(error, `remove leftovers in ${directory}`);
  }
}

function isOrphanedPreparation(name: string): boolean {
  const maker = /^\.new-[0-9a-f]{16}-(\d+)-(\d+)$/.exec(name);
  return maker !== null && identify(Number(maker[1]))?.startTime !== maker[2];
}

/** @param instance Whose folder it must be; undefined for a folder whose record cannot be read. */
async function removeAs(stateDirectory: string, vmName: string, instance: string | undefined): Promise<void> {
  const directory = vmDirectory(stateDirectory, vmName);
  const aside = join(stateDirectory, `.removing-${instance ?? `unreadable-${vmName}`}`);
  try {
    await removeTree(aside);
    if (!renameOwn(directory, aside, instance)) return;
    await syncDirectory(stateDirectory);
    await removeTree(aside);
  } catch (error) {
    if (isAbsent(error)) return; // gone already, or another process removes it at this moment
    if (isOccupied(error)) return; // another process renamed it aside since the line before
    throw storageError(error, `remove ${directory}`);
  }
}

/**
 * Renames the folder aside if it is the instance's. Another process may have removed the instance, and a third
 * taken the name, since the caller looked: so look again after the rename, and put the other's folder back.
 * Synchronous, to keep the moment short in which that folder is not where it belongs.
 */
function renameOwn(directory: string, aside: string, instance: string | undefined): boolean {
  const isOwn = (folder: string): boolean => {
    const found = instance === undefined ? undefined : recordedInstance(folder);
    return found === undefined || found === instance; // no record: what is left of this instance
  };
  if (!isOwn(directory)) return false;
  renameSync(directory, aside);
  if (isOwn(aside)) return true;
  renameSync(aside, directory);
  return false;
}

function recordedInstance(folder: string): unknown {
  try {
    return instanceIn(readFileSync(join(folder, "vm.json"), "utf8"));
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

async function removeTree(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true, maxRetries: 3, retryDelay: 20 });
  } catch (error) {
    if (!isAbsent(error)) throw error; // ENOENT: another process removes the same tree
  }
}
