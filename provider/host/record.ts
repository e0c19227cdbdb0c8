/** The record of one VM, `STATE/<vmName>/vm.json`: what a local back end must know of it after any crash. */

import type { Owner, VmSettings } from "../backends/backend.js";
import type { BootConfiguration } from "../boot/boot.js";
import type { ProcessIdentity } from "./process.js";

/**
 * How far the VM has come; each step is recorded before the next begins.
 * `claimed`: the name is ours, nothing runs. `prepared`: boot files and disks are in place. `spawned`: the VMM
 * runs, the guest does not yet. `started`: the guest was let go. `ready`: it has proved its root (or was not
 * to be started). `removing`: it is on its way out, whoever finds it goes on with that.
 */
export type Phase = "claimed" | "prepared" | "spawned" | "started" | "ready" | "removing";

/** One VM, as its folder in the state directory describes it. */
export interface VmRecord {
  readonly version: 1;
  readonly vmName: string;
  readonly instance: string;
  readonly owner: Owner;
  readonly phase: Phase;
  /** Whether the engine has shown that its state holds this instance. */
  readonly confirmed: boolean;
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
