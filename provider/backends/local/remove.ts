/** Removing a VM, whatever is left of it. */

import { releaseLeases } from "../../host/lease.js";
import { type VmRecord, writeRecord } from "../../host/record.js";
import { removeVmDirectory } from "../../host/remove.js";
import { controlSocketPath } from "../../host/runtime-directory.js";
import type { RemoveRequest } from "../backend.js";
import { ownRecord } from "./observe.js";
import { endStrays, powerOff } from "./power.js";
import type { Vmm } from "./vmm.js";

/**
 * Powers off in an orderly way, then removes process, socket, leases and folder. Removing what is gone succeeds, and so does going
 * on with what another call began.
 *
 * @throws MicroVmError `other-host`, `record-unreadable`, `state-directory`, `vmm-failed`
 */
export async function removeVm(vmm: Vmm, request: RemoveRequest): Promise<void> {
  const { reference, shutdownTimeoutSeconds } = request;
  const { stateDirectory, vmName, instance } = reference;
  const found = await ownRecord(reference);
  if (found !== undefined) {
    const removing: VmRecord = { ...found.record, phase: "removing" };
    await writeRecord(stateDirectory, removing);
    await powerOff(vmm, removing, shutdownTimeoutSeconds, request);
  }
  // Without a record too: a crash may have left any of these behind.
  await endStrays(await controlSocketPath(instance));
  await releaseLeases(instance);
  await removeVmDirectory(stateDirectory, vmName, instance);
}
