/** What is there of a VM now; never what we remember. */

import { access } from "node:fs/promises";

import { hasGuestEnded } from "../../console/ended.js";
import { MicroVmError, messageOf } from "../../errors.js";
import { leadsNowhere } from "../../host/storage.js";
import { isForgotten } from "../../host/forgotten.js";
import { vmPaths } from "../../host/paths.js";
import { type VmRecord, readRecord } from "../../host/record.js";
import { hasRemains } from "../../host/remains.js";
import { passtsOf } from "../../host/network/passt.js";
import { readHostId } from "../../host/state-directory.js";
import { handleState } from "../../preflight/nfs/index.js";
import type { ObservedState, VmOutputs, VmReference } from "../backend.js";
import { connectIfPossible } from "./power.js";
import { attachedSocketOf, runsOf, vmmsOf, vmmsOfInstance } from "./runs.js";
import type { GuestState, Vmm } from "./vmm.js";

/** What is found of a VM that has a record. `unreachable`: its VMM runs and cannot be asked. */
export type Finding = Exclude<ObservedState, "gone"> | "unreachable";

/**
 * Looks at the record, the process, the VMM and the end of the console.
 *
 * @throws MicroVmError `other-host` when the state directory is not this host's, unless the VM was forgotten; `record-unreadable`;
 * `vmm-failed` when the VMM runs and does not answer, so that running and paused cannot be told apart.
 */
export async function observeVm(vmm: Vmm, reference: VmReference): Promise<VmOutputs> {
  const found = await ownRecord(reference);
  if (found === undefined) return withoutRecord(reference);
  const { record, place } = found;
  const state = await findingOf(vmm, place.stateDirectory, record);
  if (state === "unreachable") throw unreachable(record);
  const outputs = outputsOf(place, record, state);
  const isProved = outputs.rootEvidence === "proved";
  return isProved && (await isStale(record)) ? { ...outputs, rootEvidence: "stale" } : outputs;
}

/** Whether the server does not know the guest's root any more. One that does not answer says nothing. */
export async function isStale({ boot, rootHandle }: VmRecord): Promise<boolean> {
  const { root } = boot;
  if (root.type !== "nfs" || rootHandle === undefined) return false;
  return (
    (await handleState({ server: root.hostServer, port: root.port, fileHandle: rootHandle })) === "stale"
  );
}

/** For a VM that runs, and of which nothing more can be told or done than to end it. */
export function unreachable({ vmName, controlSocket, settings }: VmRecord): MicroVmError {
  const attached = attachedSocketOf(settings);
  if (attached !== undefined) {
    return new MicroVmError(
      "vmm-failed",
      `${vmName} is in the VMM at ${attached}, which does not answer, so that it cannot be asked or told anything. Restart that VMM, then run again`,
    );
  }
  return new MicroVmError(
    "vmm-failed",
    `${vmName} runs, but its hypervisor does not answer at ${controlSocket}, so that it cannot be asked or told anything. ` +
      'Set powerState to "stopped" and then to "running", which ends and starts it again',
  );
}

/** Where a VM is kept: its state directory, and the host that this belongs to. */
export interface Place {
  readonly stateDirectory: string;
  readonly hostId: string;
}

/**
 * The record of that very instance, and where it is; undefined when it is gone (or was forgotten).
 * @throws MicroVmError `other-host`, `record-unreadable`
 */
export async function ownRecord(
  reference: VmReference,
): Promise<{ readonly record: VmRecord; readonly place: Place } | undefined> {
  const { stateDirectory, vmName, instance } = reference;
  const hostId = await hostOf(reference);
  if (hostId === undefined) return undefined;
  const record = await readRecord(stateDirectory, vmName);
  return record?.instance === instance ? { record, place: { stateDirectory, hostId } } : undefined;
}

/** What the outputs of create, update and read are made from. */
export function outputsOf(place: Place, record: VmRecord, state: ObservedState): VmOutputs {
  const isOn = state === "running" || state === "paused";
  const running = isOn || state === "damaged" ? vmmsOf(record)[0] : undefined;
  // Of a VMM that is somebody else's, what it says of its VM is all there is.
  const isUp = running !== undefined || (isOn && attachedSocketOf(record.settings) !== undefined);
  return {
    state,
    rootEvidence: record.proved && isUp ? evidenceOf(record) : "none",
    guestIp: record.boot.link.guestAddress,
    hostId: place.hostId,
    stateDirectory: place.stateDirectory,
    consoleLog: vmPaths(place.stateDirectory, record.vmName).consoleLog,
    ...(isUp ? { accelerator: record.accelerator } : {}),
    ...(running === undefined ? {} : { pid: running.pid }),
    ...(isUp && record.requested !== undefined ? { requested: record.requested } : {}),
  };
}

/** A restored guest has shown its root before the snapshot, and nothing since. */
function evidenceOf({ restoredFrom }: VmRecord): "proved" | "restored" {
  return restoredFrom === undefined ? "proved" : "restored";
}

/** Looks at a VM that has a record. */
export async function findingOf(vmm: Vmm, stateDirectory: string, record: VmRecord): Promise<Finding> {
  if (record.phase === "removing" || record.phase === "claimed") return "damaged"; // only removing it helps
  const [runs] = await runsOf(vmm, record);
  const isUp = runs !== undefined && hasNetwork(record);
  if (await isDamaged(stateDirectory, record, isUp)) return "damaged";
  if (!isUp || (await hasGuestEnded(vmPaths(stateDirectory, record.vmName).consoleLog))) return "stopped";
  if (runs?.isSilent === true) return "unreachable";
  const state = await guestStateOf(vmm, record);
  // A guest that was never let run is one whose start was killed: it is to be started, not resumed.
  if (state === "ended" || state === "unbooted") return "stopped";
  if (state !== undefined) return state;
  return (await runsOf(vmm, record)).length > 0 ? "unreachable" : "stopped"; // it may have ended just now
}

/** A guest whose passt has ended is cut off for good: it is to be started anew. */
function hasNetwork({ boot: { link }, instance }: VmRecord): boolean {
  return link.kind !== "user" || link.passt === undefined || passtsOf(instance).length > 0;
}

/** What the VMM says; undefined when it does not answer (its socket is gone, or it hangs or has just ended). */
export async function guestStateOf(vmm: Vmm, record: VmRecord): Promise<GuestState | undefined> {
  const control = await connectIfPossible(vmm, record);
  try {
    return await control?.guestState();
  } catch (error) {
    if (error instanceof MicroVmError && error.code === "vmm-failed") return undefined;
    throw error;
  } finally {
    control?.close();
  }
}

/** Whether it cannot be started again as it is: a file is missing that a start needs. */
async function isDamaged(
  stateDirectory: string,
  { vmName, boot }: VmRecord,
  isUp: boolean,
): Promise<boolean> {
  const paths = vmPaths(stateDirectory, vmName);
  const own = boot.statefulDiskMiB > 0 ? [paths.statefulDisk] : [];
  const forStart = [
    paths.kernel,
    ...(boot.initramfs === undefined ? [] : [paths.initramfs]),
    ...boot.disks.map((disk) => disk.path),
  ];
  for (const path of isUp ? own : [...own, ...forStart]) {
    if (!(await exists(path))) return true;
  }
  return false;
}

/**
 * The host id of the VM's state directory, when that is this host's; undefined for a forgotten VM, which counts as gone.
 * @throws MicroVmError `other-host`
 */
async function hostOf({ stateDirectory, vmName, hostId }: VmReference): Promise<string | undefined> {
  let found: string | undefined;
  let problem: unknown;
  try {
    // First: a folder that is no longer this host's is why a person forgets a VM.
    if (await isForgotten(stateDirectory, vmName)) return undefined;
    found = await readHostId(stateDirectory);
  } catch (error) {
    problem = error; // told below: what cannot be read is not gone
  }
  // Without a recorded host, as after a look-up by id alone, the state directory of this host is the one that is meant.
  if (problem === undefined && (hostId === undefined || found === hostId)) return found;
  const why =
    problem !== undefined
      ? `cannot be read (${messageOf(problem)})`
      : found === undefined
        ? "is not there"
        : `is that of another host (${found})`;
  throw new MicroVmError(
    "other-host",
    `${vmName} is kept in ${stateDirectory} of host ${hostId ?? "unknown"}, but here that folder ${why}. Run on that host; if it is gone for good, run: microvm forget ${vmName}`,
    { cause: problem },
  );
}

/** An instance without a record is gone, or, where its folder or its process is left, to be removed and made anew. */
async function withoutRecord(reference: VmReference): Promise<VmOutputs> {
  const { stateDirectory, vmName, hostId } = reference;
  return {
    state: (await isLeftOver(reference)) ? "damaged" : "gone",
    rootEvidence: "none",
    guestIp: "",
    hostId: hostId ?? "",
    stateDirectory,
    consoleLog: vmPaths(stateDirectory, vmName).consoleLog,
  };
}

async function isLeftOver({ stateDirectory, vmName, instance }: VmReference): Promise<boolean> {
  if (await isForgotten(stateDirectory, vmName)) return false;
  if (vmmsOfInstance(instance).length > 0) return true;
  return (
    (await readRecord(stateDirectory, vmName)) === undefined && (await hasRemains(stateDirectory, vmName))
  );
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (leadsNowhere(error)) return false;
    throw error;
  }
}
