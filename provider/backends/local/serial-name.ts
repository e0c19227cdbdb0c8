/**
 * The name by which a VMM that starts a guest again is given the console. Cloud Hypervisor, for one, takes a guest's reset (that of a
 * kernel that has panicked, too) for a wish to start again, and empties the console as it opens it anew. With the name gone it
 * cannot, and ends, as QEMU does with `-no-reboot`: the console keeps its last words, and nobody takes a VM that panics and
 * starts for ever as one that runs.
 */

import { mkdir, rm, symlink } from "node:fs/promises";
import { dirname } from "node:path";

import type { VmPaths } from "../../host/paths.js";
import { storageError } from "../../host/storage.js";

/** Makes the folder of the name, and the name itself where the console is a plain file. */
export async function makeSerialName({ serialName, consoleLog }: VmPaths, isDirect: boolean): Promise<void> {
  const folder = dirname(serialName);
  try {
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { mode: 0o700 });
    if (isDirect) await symlink(consoleLog, serialName);
  } catch (error) {
    throw storageError(error, `make ${serialName}`);
  }
}

/** Takes the name away. Idempotent. */
export async function removeSerialName({ serialName }: VmPaths): Promise<void> {
  await rm(dirname(serialName), { recursive: true, force: true });
}
