/** The record of one VM, `STATE/<vmName>/vm.json`: what a local back end must know of it after any crash. */

import type { Owner, VmSettings } from "../backends/backend.js";
import type { BootConfiguration } from "../boot/boot.js";
import type { MicroVmError } from "../errors.js";
import type { ProcessIdentity } from "./process.js";

/**
 * How far the VM has come; each step is recorded before the next begins.
 * `claimed`: the name is ours, nothing runs. `prepared`: boot files and disks are in place. `spawned`: the VMM
 * runs, the guest does not yet. `started`: the guest was let go. `ready`: it has proved its root (or was not
 * to be started). `removing`: it is on its way out, whoever finds it goes on with that.
 */
export type Phase = "claimed" | "prepared" | "spawned" | "started" | "ready" | "removing";

/** One VM, as its folder in the state directory describes it. Whether it is confirmed is in a file beside it (confirm.ts). */
export interface VmRecord {
  readonly version: 1;
  readonly vmName: string;
  readonly instance: string;
  readonly owner: Owner;
  readonly phase: Phase;
  /** The process that runs create. */
  readonly creator: ProcessIdentity;
  /** The VMM's process, once there is one. */
  readonly vmm?: ProcessIdentity;
  /** The VMM's control socket, in the runtime directory. */
  readonly controlSocket: string;
  readonly accelerator?: "kvm" | "tcg";
  readonly boot: BootConfiguration;
  readonly settings: VmSettings;
  /** Whether the guest has proved its root since it was last started. */
  readonly proved: boolean;
  /** ISO 8601. */
  readonly createdAt: string;
}

/** One folder of the state directory: its record, or why there is none to be had. */
export type ListedRecord =
  | { readonly vmName: string; readonly record: VmRecord }
  | { readonly vmName: string; readonly error: MicroVmError };

/**
 * The record of a VM.
 *
 * @returns undefined when there is none.
 * @throws MicroVmError `record-unreadable` when it is torn or of another version; `state-directory` when it cannot be read.
 */
export async function readRecord(stateDirectory: string, vmName: string): Promise<VmRecord | undefined> {
  throw new Error("not written yet", { cause: [stateDirectory, vmName] });
}

/**
 * Replaces the record of a VM whose name is claimed: complete and on the disk when this returns, or unchanged.
 *
 * @throws MicroVmError `state-directory` when it cannot be written or the VM's folder is not this instance's any more.
 */
export async function writeRecord(stateDirectory: string, record: VmRecord): Promise<void> {
  throw new Error("not written yet", { cause: [stateDirectory, record] });
}

/** The records of all VMs in a state directory, by name; empty when the state directory is not there. */
export async function listRecords(stateDirectory: string): Promise<ListedRecord[]> {
  throw new Error("not written yet", { cause: stateDirectory });
}
