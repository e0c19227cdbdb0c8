/** Removing a VM, whatever is left of it. */

import { releaseLeases } from "../../host/lease.js";
import { detachNetwork } from "../../host/network/index.js";
import { vmPaths } from "../../host/paths.js";
import { type VmRecord, writeRecord } from "../../host/record.js";
import { removeVmDirectory } from "../../host/remove.js";
import { controlSocketPath } from "../../host/runtime-directory.js";
import { isOutOfSpace } from "../../host/storage.js";
import type { RemoveRequest } from "../backend.js";
import { isStale, ownRecord } from "./observe.js";
import { endStrays, powerOff } from "./power.js";
import type { Vmm } from "./vmm.js";

/**
 * Powers off, in an orderly way unless the NFS server does not know the guest's root any more, then removes process, socket, leases
 * and folder. Removing what is gone succeeds, and so does going on with what another call began.
 *
 * @throws MicroVmError `other-host`, `record-unreadable`, `state-directory`, `vmm-failed`
 */
export async function removeVm(vmm: Vmm, request: RemoveRequest): Promise<void> {
  const { reference, shutdownTimeoutSeconds } = request;
  const { stateDirectory, vmName, instance } = reference;
  const found = await ownRecord(reference);
  if (found !== undefined) await recordRemoval(stateDirectory, { ...found.record, phase: "removing" });
  const controlSocket = await controlSocketPath(instance);
  // Without a record too: a crash, or a person, may have left any of these behind.
  const { consoleLog } = vmPaths(stateDirectory, vmName);
  const vm = found?.record ?? { vmName, controlSocket };
  // A guest whose root is gone for good can neither run its shutdown nor write anything more.
  const isLost = found?.record.proved === true && (await isStale(found.record));
  const how = { shutdownTimeoutSeconds: isLost ? 0 : shutdownTimeoutSeconds, consoleLog };
  await powerOff(vmm, vm, how, request);
  await endStrays(instance, controlSocket);
  await detachNetwork(instance, found?.record.boot.link);
  await releaseLeases(instance);
  await removeVmDirectory(stateDirectory, vmName, instance);
}

/** So that whoever finds the VM after a crash goes on. A full disk is no reason to stop: removing makes room on it. */
async function recordRemoval(stateDirectory: string, removing: VmRecord): Promise<void> {
  try {
    await writeRecord(stateDirectory, removing);
  } catch (error) {
    if (!isOutOfSpace(error)) throw error;
  }
}
