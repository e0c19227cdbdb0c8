/** What runs a VM's guest: a process of ours, or a VMM that somebody else keeps running and that has our VM in it. */

import { setTimeout as delay } from "node:timers/promises";

import { MicroVmError, systemCodeOf } from "../../errors.js";
import { endProcess, findByArgument, isAlive, type ProcessIdentity } from "../../host/process.js";
import type { VmRecord } from "../../host/record.js";
import { removeSockets, socketName } from "../../host/runtime-directory.js";
import type { VmSettings } from "../backend.js";
import type { AttachedControl, Vmm, VmmControl } from "./vmm.js";

/** One of them. */
export interface Runs {
  isUp(): Promise<boolean>;
  /** How often that is worth to be asked. */
  readonly pollMilliseconds: number;
  /** The process, where it is ours. */
  readonly vmm?: ProcessIdentity;
  /** Present and true where it did not answer when it was looked for: whose VM it has is not known. */
  readonly isSilent?: true;
}

/** What a VMM is known by; without a phase it is looked for in any case, without settings it is no other's than ours. */
export type Startable = Pick<VmRecord, "controlSocket"> &
  Partial<Pick<VmRecord, "vmm" | "phase" | "settings" | "instance">>;

const PROCESS_POLL_MILLISECONDS = 20;
const SOCKET_POLL_MILLISECONDS = 200;

/** The API socket of the VMM that a VM is put into; undefined for one whose VMM we start. */
export function attachedSocketOf({ backend }: VmSettings): string | undefined {
  return backend.type === "cloud-hypervisor" ? backend.apiSocket : undefined;
}

/** What runs the guest of a record now; more than one after a crash alone. A VMM of another's that does not answer counts. */
export async function runsOf(vmm: Vmm, record: Startable): Promise<Runs[]> {
  const attached = attachmentOf(record);
  if (attached === undefined) return vmmsOf(record).map(processRuns);
  const look = async (): Promise<Reached["kind"]> => (await looked(vmm, attached)).kind;
  const found = await look();
  if (!mayBeUp(found)) return [];
  return [
    {
      isUp: async () => mayBeUp(await look()),
      pollMilliseconds: SOCKET_POLL_MILLISECONDS,
      ...(found === "silent" ? { isSilent: true } : {}),
    },
  ];
}

function mayBeUp(kind: Reached["kind"]): boolean {
  return kind === "ours" || kind === "silent";
}

function processRuns(vmm: ProcessIdentity): Runs {
  return {
    isUp: () => Promise.resolve(isAlive(vmm)),
    pollMilliseconds: PROCESS_POLL_MILLISECONDS,
    vmm,
  };
}

/** Waits for the end of it. @returns Whether it has ended in time. */
export async function untilEnded(runs: Runs, seconds: number): Promise<boolean> {
  const deadline = performance.now() + seconds * 1000;
  while (await runs.isUp()) {
    if (performance.now() >= deadline) return false;
    await delay(runs.pollMilliseconds);
  }
  return true;
}

/**
 * A connection to what runs a record's VM.
 *
 * @throws MicroVmError `vmm-failed` when it does not answer, or has not this VM.
 */
export async function connectTo(vmm: Vmm, record: Startable): Promise<VmmControl> {
  const attached = attachmentOf(record);
  if (attached === undefined) return await vmm.connect(record.controlSocket);
  const found = await reach(vmm, attached);
  if (found.kind === "ours") return found.control;
  if (found.kind === "silent") throw found.error;
  throw new MicroVmError("vmm-failed", `the VMM at ${attached.socket} has not this VM any more`);
}

/**
 * A connection to a VMM of somebody else's that has room for a VM.
 *
 * @throws MicroVmError `host-unusable`, input `backend.apiSocket`, when it is not there, does not answer, or has another VM.
 */
export async function connectFree(vmm: Vmm, record: Startable): Promise<VmmControl> {
  const attached = attachmentOf(record);
  if (attached === undefined) throw new Error("the VMM is ours to start");
  const found = await reach(vmm, attached);
  if (found.kind === "empty") return found.control;
  if (found.kind === "silent") throw found.error;
  if (found.kind === "ours") found.control.close();
  throw new MicroVmError("host-unusable", whyNotFree(attached.socket, found), {
    input: "backend.apiSocket",
  });
}

function whyNotFree(socket: string, found: { readonly kind: string; readonly instance?: string }): string {
  if (found.kind === "nobody") {
    return `expected a Cloud Hypervisor that listens at ${socket}, and none does. Start it (cloud-hypervisor --api-socket path=${socket}), or leave backend.apiSocket out to have one started for each VM`;
  }
  const whose =
    found.instance === undefined ? "a VM of somebody else's" : `the VM of instance ${found.instance}`;
  return `expected a Cloud Hypervisor without a VM at ${socket}, and it has ${whose}; a VMM has one VM at a time. Name another VMM, or end that VM`;
}

/**
 * Ends a VM's guest at once: the process that runs it, recorded or not, and its socket; of somebody else's VMM, the VM alone.
 *
 * @throws MicroVmError `vmm-failed` when somebody else's VMM does not answer: it may run the guest still.
 */
export async function endGuest(vmm: Vmm, record: Startable): Promise<void> {
  const attached = attachmentOf(record);
  if (attached === undefined) {
    for (const identity of vmmsOf({ ...record, phase: undefined })) await endProcess(identity, 0);
  } else {
    await discard(vmm, attached);
  }
  await removeSockets(record.controlSocket);
}

async function discard(vmm: Vmm, attached: Attached): Promise<void> {
  const found = await reach(vmm, attached);
  if (found.kind === "silent") {
    throw new MicroVmError(
      "vmm-failed",
      `the VMM at ${attached.socket} does not answer, so that its VM cannot be ended, and its process is not ours to end. End or restart it, then run again`,
      { cause: found.error },
    );
  }
  if (found.kind === "empty") found.control.close();
  if (found.kind !== "ours") return;
  try {
    await found.control.quit();
  } catch (error) {
    // The guest may have powered itself off, and its VMM with it, since the look.
    if ((await looked(vmm, attached)).kind === "ours") throw error;
  } finally {
    found.control.close();
  }
}

/** The VMMs of a record that live: the recorded one, else what was started and not recorded before a crash. */
export function vmmsOf({ vmm, controlSocket, phase, settings }: Startable): ProcessIdentity[] {
  if (settings !== undefined && attachedSocketOf(settings) !== undefined) return [];
  if (vmm !== undefined && isAlive(vmm)) return [vmm];
  // Every start is recorded as `prepared` before it: hundreds of stopped VMs are not looked for among all processes.
  if (phase === "spawned" || phase === "started" || phase === "ready") return [];
  return findByArgument(controlSocket);
}

/** Processes started for an instance, whatever folder their control socket is in. */
export function vmmsOfInstance(instance: string): ProcessIdentity[] {
  return findByArgument(`/${socketName(instance)}`);
}

/** A VM in a VMM of somebody else's. */
interface Attached {
  readonly socket: string;
  readonly instance: string;
}

function attachmentOf({ settings, instance }: Startable): Attached | undefined {
  const socket = settings === undefined ? undefined : attachedSocketOf(settings);
  return socket === undefined || instance === undefined ? undefined : { socket, instance };
}

/** What is found at a socket: our VM, another's (an instance where it is one of this provider), no VM, nobody, or no answer. */
type Reached =
  | { readonly kind: "ours" | "empty"; readonly control: AttachedControl }
  | { readonly kind: "other"; readonly instance?: string }
  | { readonly kind: "nobody" }
  | { readonly kind: "silent"; readonly error: MicroVmError };

/** Looks, and keeps no connection. */
async function looked(vmm: Vmm, attached: Attached): Promise<Reached> {
  const found = await reach(vmm, attached);
  if (found.kind === "ours" || found.kind === "empty") found.control.close();
  return found;
}

async function reach(vmm: Vmm, { socket, instance }: Attached): Promise<Reached> {
  if (vmm.attach === undefined) throw new Error(`${vmm.name} is never somebody else's`);
  let control: AttachedControl | undefined;
  try {
    control = await vmm.attach(socket);
    const holder = await control.holder();
    if (holder === "nobody") return { kind: "empty", control };
    if (holder.instance === instance) return { kind: "ours", control };
    control.close();
    return { kind: "other", ...holder };
  } catch (error) {
    control?.close();
    if (!(error instanceof MicroVmError && error.code === "vmm-failed")) throw error;
    const code = systemCodeOf(error.cause);
    return code === "ENOENT" || code === "ECONNREFUSED" ? { kind: "nobody" } : { kind: "silent", error };
  }
}
