/** What the life of a local VM needs of its hypervisor: QEMU is one, Cloud Hypervisor another. */

import type { BootConfiguration, GuestLink, PortForward } from "../../boot/boot.js";
import type { Attachment } from "../../host/network/index.js";
import type { VmSettings, Work } from "../backend.js";

/** One start of a VMM. All paths are absolute. */
export interface Launch {
  readonly vmName: string;
  /** 16 hex digits. */
  readonly instance: string;
  readonly boot: BootConfiguration;
  readonly settings: VmSettings;
  readonly paths: {
    /** Folder of the VM, removed with it. */
    readonly directory: string;
    readonly kernel: string;
    /** Present when the boot has one. */
    readonly initramfs?: string;
    readonly controlSocket: string;
    /** What the guest's serial console is written to. */
    readonly consoleLog: string;
    /** The unix socket that leads to the guest's vsock, in a folder of its own. */
    readonly vsock: string;
    /** What the VMM tells of its own accord, where it does. */
    readonly events: string;
    /** Folder that the VMM may write snapshots to. */
    readonly snapshots: string;
  };
  /** Whether the VMM is somebody else's, and goes on after the VM. */
  readonly isAttached: boolean;
  /** Absent where the VMM makes the guest's network itself. */
  readonly network?: Attachment;
}

/** A hypervisor's program on this host, found fit for a VM's settings. */
export interface VmmProgram {
  /** Absolute path. */
  readonly file: string;
  readonly accelerator: "kvm" | "tcg";
  /** Its arguments; the guest must not run before {@link VmmControl.boot}. */
  argumentsFor(launch: Launch): string[];
  /** What it needs in its environment. */
  environmentFor?(launch: Launch): Readonly<Record<string, string>>;
}

/**
 * What a VMM says of its guest. `ended`: the guest is off or has crashed, the VMM is about to end or useless. `unbooted`: it was
 * never let run.
 */
export type GuestState = "running" | "paused" | "unbooted" | "ended";

/** One connection to a running VMM. Every method throws MicroVmError `vmm-failed` with the VMM's own words. */
export interface VmmControl {
  guestState(): Promise<GuestState>;
  /** Does what of {@link boot} can be done before the record says that the guest runs. */
  prepare?(launch: Launch, work: Work): Promise<void>;
  /** Lets the guest run for the first time, after {@link prepare}. */
  boot(launch: Launch, work: Work): Promise<void>;
  /** Lets a paused guest go on; one that runs, too. */
  resume(): Promise<void>;
  /** Pauses the guest, if it is not paused. */
  pause(): Promise<void>;
  /** Asks the guest to power itself off; returns at once. */
  pressPowerButton(): Promise<void>;
  /** Ends the VMM at once; one of somebody else's loses its VM alone. */
  quit(): Promise<void>;
  /** @param link Where the guest is. */
  addPortForward(forward: PortForward, link: GuestLink): Promise<void>;
  /** Removing what is not there succeeds. */
  removePortForward(forward: PortForward): Promise<void>;
  /** Tells the guest the new size of the disk at this position of the boot configuration's list. */
  resizeDisk(index: number, bytes: number): Promise<void>;
  /**
   * Asks for more vCPUs and memory, within what the VM was made with room for. The guest may take its time with them, or never use them.
   */
  resizeVm(size: VmSize): Promise<void>;
  close(): void;
}

/** A connection to a VMM that somebody else has started and keeps running. */
export interface AttachedControl extends VmmControl {
  /** Whose VM it has: an instance of this provider, where it is one. */
  holder(): Promise<"nobody" | { readonly instance?: string }>;
}

/** What a VM can have more of while it runs. */
export interface VmSize {
  readonly vcpus: number;
  readonly memoryMiB: number;
}

/** How a hypervisor writes its VM into files, and makes it from them again. */
export interface VmmSnapshots {
  /**
   * Writes the paused guest into a folder.
   *
   * @param folder Absolute path; empty.
   * @throws MicroVmError `vmm-failed`
   */
  take(controlSocket: string, folder: string): Promise<TakenSnapshot>;
  /**
   * Makes a guest from what {@link take} wrote, paused as it was, in place of {@link VmmControl.boot}.
   *
   * @param from Absolute path of the folder that was written.
   * @param scratch Absolute path of an empty folder on the same file system, which is no longer needed afterwards.
   * @throws MicroVmError `vmm-failed`, `state-directory`
   */
  restore(launch: Launch, from: string, scratch: string): Promise<void>;
}

/** What a snapshot consists of, and what a restored guest still believes of its devices. */
export interface TakenSnapshot {
  /** Names of the files in the folder. */
  readonly files: readonly string[];
  readonly vsockCid: number;
  readonly queuePairs: number;
}

/** A hypervisor. */
export interface Vmm {
  /** For messages: `QEMU`. */
  readonly name: string;
  /**
   * Whether it starts a guest again that resets itself. Then it is given the console by a name that is gone once the guest runs:
   * it cannot open the console again, and ends.
   */
  readonly restartsGuest: boolean;
  /** Absent where it takes none. */
  readonly snapshots?: VmmSnapshots;
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
  /**
   * Connects to one that is somebody else's. Absent where there is no such thing.
   *
   * @param socket Absolute path.
   * @throws MicroVmError as {@link connect}.
   */
  attach?(socket: string): Promise<AttachedControl>;
}
