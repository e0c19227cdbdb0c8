/** `STATE/.lost`: folders of VMs that nobody claims any more, kept for the sake of their disks. */

import { mkdir, rename } from "node:fs/promises";
import { dirname } from "node:path";

import { lostDirectory, vmDirectory } from "./paths.js";
import { isAbsent, isOccupied, storageError, syncDirectory } from "./storage.js";

/**
 * Moves a VM's folder to `STATE/.lost/<vmName>-<instance>`. Of several callers at once exactly one moves it, and
 * no folder that has taken the name since is touched: rename(2) does not replace a folder that is not empty.
 *
 * @returns Where it is now; undefined when it was moved before.
 * @throws MicroVmError `state-directory`
 */
export async function moveToLost(
  stateDirectory: string,
  vmName: string,
  instance: string,
): Promise<string | undefined> {
  const target = lostDirectory(stateDirectory, vmName, instance);
  try {
    await mkdir(dirname(target), { recursive: true, mode: 0o700 });
    await rename(vmDirectory(stateDirectory, vmName), target);
    await syncDirectory(dirname(target));
    await syncDirectory(stateDirectory);
    return target;
  } catch (error) {
    if (isOccupied(error) || isAbsent(error)) return undefined;
    throw storageError(error, `move ${vmDirectory(stateDirectory, vmName)} to ${target}`);
  }
}
