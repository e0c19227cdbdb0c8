/** The spec of one MicroVm: validated, normalised, every default filled in. */

import type { PortForward } from "../boot/boot.js";
import type { LocalBackend, PowerState, Readiness } from "../backends/backend.js";

/** How findings that would fail a boot are treated before it. */
export type PreflightMode = "error" | "warn" | "off";

/** The root file system that the guest runs from. */
export type RootSpec =
  | {
      readonly useNfsRoot: true;
      readonly nfsServer: string;
      readonly nfsPort: number;
      readonly nfsPath: string;
      readonly nfsMountPort: number | "rpcbind";
      /** Mount options beside ours, as they go into nfsroot=; empty for none. */
      readonly nfsOptions: string;
      /** Id of the export resource that serves the root; absent for a server of the person's own. */
      readonly nfsExport?: string;
    }
  | { readonly useNfsRoot: false; readonly rootfs: string };

/** What one MicroVm on this host is to be. */
export type Spec = RootSpec & {
  readonly vmName: string;
  readonly kernel: string;
  readonly initramfs?: string;
  readonly entryPoint?: string;
  /** Snapshot that the guest is restored from when the VM is made; absent for a boot. */
  readonly snapshotId?: string;
  readonly kernelArgs: readonly string[];
  /** `static`, `dhcp` or the guest's IPv4 address. */
  readonly ip: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly maxVcpus?: number;
  readonly maxMemoryMiB?: number;
  readonly statefulDiskMiB: number;
  readonly portForwards: readonly PortForward[];
  /** The bridge, tap or network of a tap link, or that passt makes a user network; absent for the defaults. */
  readonly network?: {
    readonly bridge?: string;
    readonly tap?: string;
    readonly subnet?: string;
    readonly passt?: boolean;
  };
  readonly guestAccess: "internet" | "nfs-only";
  readonly powerState: PowerState;
  readonly readiness: Readiness;
  readonly shutdownTimeoutSeconds: number;
  readonly backend: LocalBackend;
  readonly preflight: PreflightMode;
};
