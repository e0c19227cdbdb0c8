/** What the life of a local VM needs of its hypervisor. QEMU is one; Cloud Hypervisor will be another. */

import type { BootConfiguration, GuestLink, PortForward } from "../../boot/boot.js";
import type { VmSettings } from "../backend.js";

/** One start of a VMM. All paths are absolute. */
export interface Launch {
  readonly vmName: string;
  /** 16 hex digits. */
  readonly instance: string;
  readonly boot: BootConfiguration;
  readonly settings: VmSettings;
  readonly paths: {
    readonly kernel: string;
    /** Present when the boot has one. */
    readonly initramfs?: string;
    readonly controlSocket: string;
    readonly consoleLog: string;
  };
}

/** A hypervisor's program on this host, found fit for a VM's settings. */
export interface VmmProgram {
  /** Absolute path. */
  readonly file: string;
  readonly accelerator: "kvm" | "tcg";
  /** Its arguments; the guest must not run before {@link VmmControl.resume}. */
  argumentsFor(launch: Launch): string[];
}

/**
 * What a VMM says of its guest. `ended`: the guest is off or has crashed, the VMM is about to end or useless. `unbooted`: it was
 * never let run.
 */
export type GuestState = "running" | "paused" | "unbooted" | "ended";

/** One connection to a running VMM. Every method throws MicroVmError `vmm-failed` with the VMM's own words. */
export interface VmmControl {
  guestState(): Promise<GuestState>;
  /** Lets the guest run, the first time too. */
  resume(): Promise<void>;
  pause(): Promise<void>;
  /** Asks the guest to power itself off; returns at once. */
  pressPowerButton(): Promise<void>;
  /** Ends the VMM at once. */
  quit(): Promise<void>;
  /** @param link Where the guest is. */
  addPortForward(forward: PortForward, link: GuestLink): Promise<void>;
  /** Removing what is not there succeeds. */
  removePortForward(forward: PortForward): Promise<void>;
  /** Tells the guest the new size of the disk at this position of the boot configuration's list. */
  resizeDisk(index: number, bytes: number): Promise<void>;
  close(): void;
}

/** A hypervisor. */
export interface Vmm {
  /** For messages: `QEMU`. */
  readonly name: string;
  /**
   * Finds the program.
   * @throws MicroVmError `host-unusable` when this host cannot run such a VM.
   */
  find(settings: VmSettings): Promise<VmmProgram>;
  /**
   * Connects to a running one.
   * @throws MicroVmError `vmm-failed` when nobody answers at the socket.
   */
  connect(controlSocket: string): Promise<VmmControl>;
}
