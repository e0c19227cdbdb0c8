/** Giving a VM up without touching it: the way out when its host is gone for good. */

import type { Notice } from "../notice.js";

/**
 * Leaves a tombstone, so that read, update and delete take the VM as gone, and moves a folder of that name to `STATE/.lost`. Its
 * process is not ended; the notice says so.
 */
export async function forget(stateDirectory: string, vmName: string, notice: Notice): Promise<void> {
  throw new Error("not written yet", { cause: [stateDirectory, vmName, notice] });
}

/** Whether the VM was forgotten and no VM has taken its name since. */
export async function isForgotten(stateDirectory: string, vmName: string): Promise<boolean> {
  throw new Error("not written yet", { cause: [stateDirectory, vmName] });
}
