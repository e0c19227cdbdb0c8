/** Making a VM: all of it, or nothing is left. */

import { claimOf } from "../../console/evidence.js";
import { MicroVmError, messageOf } from "../../errors.js";
import { copyIn } from "../../host/boot-files.js";
import { claimName } from "../../host/claim.js";
import { makeStatefulDisk } from "../../host/disk.js";
import { releaseLeases, takeLease } from "../../host/lease.js";
import { detachNetwork } from "../../host/network/index.js";
import { vmPaths } from "../../host/paths.js";
import { thisProcess } from "../../host/process.js";
import { type VmRecord, writeRecord } from "../../host/record.js";
import { removeVmDirectory } from "../../host/remove.js";
import { controlSocketPath } from "../../host/runtime-directory.js";
import { openStateDirectory, type StateDirectory } from "../../host/state-directory.js";
import type { CreateRequest, VmOutputs } from "../backend.js";
import { stopIfInterrupted } from "./interrupt.js";
import { leaseOf } from "./ports.js";
import { outputsOf } from "./observe.js";
import { Restoration } from "./restore.js";
import { attachedSocketOf, connectTo, endGuest } from "./runs.js";
import { type StartPlace, startVm } from "./start.js";
import type { Vmm } from "./vmm.js";
import type { Prover } from "./watch.js";

/**
 * Claims the name, prepares, starts and waits for the proof; each step is recorded before the next.
 *
 * @throws MicroVmError of any code; no process, file or lease is left then.
 */
export async function createVm(vmm: Vmm, prove: Prover, request: CreateRequest): Promise<VmOutputs> {
  const { boot, settings, signal, notice } = request;
  // What can be refused without touching the host comes first.
  claimOf(boot, settings.readiness);
  const program = attachedSocketOf(settings) === undefined ? await vmm.find(settings) : undefined;
  const restoration = await Restoration.of(vmm, request);
  const state = await openStateDirectory(request.stateDirectory);
  const claimed = await firstRecord(request);
  stopIfInterrupted(signal);
  await claimName(state.path, claimed, request, { endGuest: async (lost) => await endGuest(vmm, lost) });
  try {
    const place: StartPlace = {
      vmm,
      prove: restoration === undefined ? prove : (watch) => restoration.settle(watch),
      program,
      stateDirectory: state.path,
      work: { signal, notice },
      restoration,
      isNew: true,
    };
    return await prepareAndStart(place, state, claimed);
  } catch (error) {
    await undo(vmm, state, claimed, error);
    throw error;
  }
}

async function firstRecord(request: CreateRequest): Promise<VmRecord> {
  const { vmName, instance, owner, boot, settings } = request;
  return {
    version: 1,
    vmName,
    instance,
    owner,
    phase: "claimed",
    creator: thisProcess(),
    controlSocket: await controlSocketPath(instance),
    boot,
    settings,
    proved: false,
    createdAt: new Date().toISOString(),
  };
}

async function prepareAndStart(
  place: StartPlace,
  state: StateDirectory,
  claimed: VmRecord,
): Promise<VmOutputs> {
  const { vmm, work } = place;
  const prepared = await prepare(state, claimed, place);
  const { powerState } = claimed.settings;
  if (powerState === "stopped") {
    const ready: VmRecord = { ...prepared, phase: "ready" };
    await writeRecord(state.path, ready);
    return outputs(state, ready, "stopped");
  }
  const ready = await startVm(place, prepared);
  if (powerState === "paused") {
    const control = await connectTo(vmm, ready);
    try {
      await control.pause();
    } finally {
      control.close();
    }
  }
  stopIfInterrupted(work.signal);
  return outputs(state, ready, powerState);
}

function outputs(
  state: StateDirectory,
  record: VmRecord,
  observed: "running" | "paused" | "stopped",
): VmOutputs {
  return outputsOf({ hostId: state.hostId, stateDirectory: state.path }, record, observed);
}

/** Leases, boot files, the stateful disk. */
async function prepare(state: StateDirectory, claimed: VmRecord, place: StartPlace): Promise<VmRecord> {
  const { vmName, instance, boot } = claimed;
  const { restoration } = place;
  const { signal } = place.work;
  const paths = vmPaths(state.path, vmName);
  for (const forward of boot.portForwards) {
    await takeLease(leaseOf(forward), { stateDirectory: state.path, vmName, instance });
  }
  stopIfInterrupted(signal);
  await copyIn(boot.kernel, paths.kernel, "kernel");
  stopIfInterrupted(signal);
  if (boot.initramfs !== undefined) await copyIn(boot.initramfs, paths.initramfs, "initramfs");
  stopIfInterrupted(signal);
  await restoration?.takeLeases({ stateDirectory: state.path, vmName, instance });
  if (boot.statefulDiskMiB > 0) {
    if (restoration === undefined) await makeStatefulDisk(paths.statefulDisk, boot.statefulDiskMiB);
    else await restoration.copyDisk(paths.statefulDisk, signal);
  }
  stopIfInterrupted(signal);
  const prepared: VmRecord = { ...claimed, phase: "prepared" };
  await writeRecord(state.path, prepared);
  return prepared;
}

/** Takes back whatever create has done; the first error stays the one that is told. */
async function undo(vmm: Vmm, state: StateDirectory, record: VmRecord, error: unknown): Promise<void> {
  try {
    await endGuest(vmm, record);
    await detachNetwork(record.instance, record.boot.link);
    await releaseLeases(record.instance);
    await removeVmDirectory(state.path, record.vmName, record.instance);
  } catch (failure) {
    const code = error instanceof MicroVmError ? error.code : "vmm-failed";
    throw new MicroVmError(
      code,
      `${messageOf(error)}\nUndoing it failed as well, so ${record.vmName} is still in ${state.path}: ${messageOf(failure)}`,
      { cause: error },
    );
  }
}
