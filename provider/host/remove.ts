/** Removing a VM's folder. */

/**
 * Removes the folder of an instance whose process has ended: renamed aside first, so that the name is free or taken, never in between. Idempotent;
 * no effect on another instance.
 *
 * @throws MicroVmError `record-unreadable` when the record is torn: whose folder it is cannot be told.
 */
export async function removeVmDirectory(
  stateDirectory: string,
  vmName: string,
  instance: string,
): Promise<void> {
  throw new Error("not written yet", { cause: [stateDirectory, vmName, instance] });
}
