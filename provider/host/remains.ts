/** What can be left of a VM whose record is gone. */

import { stat } from "node:fs/promises";

import { vmPaths } from "./paths.js";
import { findByArgument, type ProcessIdentity } from "./process.js";
import { isAbsent, storageError } from "./storage.js";

/** Processes that boot from the folder of a VM of this name, recorded or not: QEMU has the path of the kernel in its arguments, others that of their events. */
export function vmmsIn(stateDirectory: string, vmName: string): ProcessIdentity[] {
  const { kernel, vmmEvents } = vmPaths(stateDirectory, vmName);
  return findByArgument(kernel, vmmEvents);
}

/** Whether a folder or a process of a VM of this name is there; to be asked where it has no record. */
export async function hasRemains(stateDirectory: string, vmName: string): Promise<boolean> {
  const { directory } = vmPaths(stateDirectory, vmName);
  try {
    await stat(directory);
    return true;
  } catch (error) {
    if (isAbsent(error)) return vmmsIn(stateDirectory, vmName).length > 0;
    throw storageError(error, `look for ${directory}`);
  }
}
