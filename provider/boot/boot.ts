/**
 * The boot configuration: everything that a hypervisor is given. Made once, by {@link bootConfiguration};
 * the preview shows it and the back end boots it.
 */

import type { Spec } from "../spec/spec.js";
import { commandLine } from "./cmdline.js";
import { guestDisks } from "./disks.js";
import { guestLink, seenFromGuest, seenFromHost } from "./network.js";

/** A file that is booted from, pinned by content. */
export interface BootFile {
  /** Absolute path on this host. */
  readonly path: string;
  /** SHA-256 of the content, 64 hex digits. */
  readonly sha256: string;
}

/** A block device, in the guest's order: the first is `/dev/vda`. The seed's shape. */
export interface Disk {
  /** Absolute path of the raw image. */
  readonly path: string;
  /** Present and true when the guest may only read it. */
  readonly readonly?: true;
  /** Queues of the virtio device: one per vCPU. */
  readonly numQueues: number;
}

/** A port of the host that leads to a port of the guest. */
export interface PortForward {
  /** Port on the host, 1 to 65535. */
  readonly hostPort: number;
  /** Port in the guest, 1 to 65535. */
  readonly guestPort: number;
  readonly protocol: "tcp" | "udp";
  /** IPv4 address of the host that listens; `127.0.0.1` unless asked otherwise. */
  readonly hostAddress: string;
}

/** What every kind of link has: the guest's place on it. */
interface LinkAddresses {
  /** IPv4 address of the guest. */
  readonly guestAddress: string;
  /** IPv4 address of the host on this link, and the guest's gateway. */
  readonly gatewayAddress: string;
  /** Length of the network's prefix, 0 to 32; absent where the network configuration names none. */
  readonly prefixLength?: number;
  /** IPv4 addresses of name servers that answer on this link. */
  readonly nameServers: readonly string[];
  /** Present and true when the guest reaches its NFS root and nothing else. */
  readonly nfsOnly?: true;
}

/** A user network: QEMU's own, or passt's with the same addresses. */
export interface UserLink extends LinkAddresses {
  readonly kind: "user";
  /** Present where it is passt's (Cloud Hypervisor). */
  readonly passt?: {
    /** Hardware address of the guest's interface. */
    readonly mac: string;
  };
}

/** A tap of the host on a bridge. */
export interface TapLink extends LinkAddresses {
  readonly kind: "tap";
  /** Name of the bridge that the tap is on; its address is `gatewayAddress`. */
  readonly bridge: string;
  /** An existing tap, used and left as it is; absent for one of our own, named by {@link tapNameOf}. */
  readonly tap?: string;
  /** Present and true when the network is somebody else's as a whole: the tap is used, and neither links nor rules are made. */
  readonly asIs?: true;
  /** Hardware address of the guest's interface: `02:11:22:33:44:55`. */
  readonly mac: string;
}

/** The link between the guest's only network interface and the host, as the guest sees it. */
export type GuestLink = UserLink | TapLink;

/**
 * Name of a VM's own tap: `mvm` and 12 hex digits of the instance (an interface name has at most 15 characters, IFNAMSIZ).
 *
 * @param instance 16 hex digits.
 */
export function tapNameOf(instance: string): string {
  return `mvm${instance.slice(0, 12)}`;
}

/** What the guest's root is, once every default is known. */
export type Root =
  | {
      readonly type: "nfs";
      /** IPv4 address that the guest mounts from, as seen on its link. */
      readonly server: string;
      /** IPv4 address under which this host reaches the same server. */
      readonly hostServer: string;
      readonly port: number;
      readonly mountPort: number | "rpcbind";
      readonly path: string;
    }
  | { readonly type: "disk"; readonly rootfs: string };

/** The memory of a running guest grows by blocks of this size (docs/hotplug.md of Cloud Hypervisor). */
export const MEMORY_BLOCK_MIB = 128;

/** Everything that a hypervisor is given. */
export interface BootConfiguration {
  readonly kernel: BootFile;
  /** Given by the person, or generated because the kernel has NFS (or virtio) only as modules. */
  readonly initramfs?: BootFile & { readonly generated: boolean };
  /** The kernel command line, to the letter. */
  readonly cmdline: string;
  readonly root: Root;
  readonly disks: readonly Disk[];
  /** Size of the stateful disk in MiB; 0 for none. When there is one, it is the last of `disks`. */
  readonly statefulDiskMiB: number;
  readonly link: GuestLink;
  readonly portForwards: readonly PortForward[];
  readonly vcpus: number;
  readonly memoryMiB: number;
  /** vCPUs that the VM can grow to while it runs; absent where it cannot. At least `vcpus`. */
  readonly maxVcpus?: number;
  /** Memory that the VM can grow to while it runs; absent where it cannot. At least `memoryMiB`. */
  readonly maxMemoryMiB?: number;
}

/** What the world had to tell before a boot configuration could be made; the preview shows these values too. */
export interface BootFacts {
  readonly kernel: BootFile;
  readonly initramfs?: BootFile & { readonly generated: boolean };
  /** IPv4 address of the NFS server as this host reaches it; absent on a disk root. */
  readonly nfsServerAddress?: string;
  /** Absolute path at which the stateful disk's image is, or would be. */
  readonly statefulDisk: string;
}

/**
 * Spec and facts to the boot configuration. Pure: the same arguments give the same value in preview and up.
 *
 * @throws MicroVmError `invalid-input` when the kernel command line passes a limit.
 */
export function bootConfiguration(spec: Spec, facts: BootFacts): BootConfiguration {
  const link = guestLink(spec);
  const server = facts.nfsServerAddress;
  const guestServer = server === undefined ? undefined : seenFromGuest(server, link);
  const root: Root = spec.useNfsRoot
    ? {
        type: "nfs",
        server: guestServer ?? spec.nfsServer,
        hostServer: seenFromHost(server ?? spec.nfsServer, link),
        port: spec.nfsPort,
        mountPort: spec.nfsMountPort,
        path: spec.nfsPath,
      }
    : { type: "disk", rootfs: spec.rootfs };
  return {
    kernel: facts.kernel,
    initramfs: facts.initramfs,
    cmdline: commandLine({
      spec,
      link,
      nfsServerAddress: guestServer,
      ownInitramfs: facts.initramfs !== undefined && !facts.initramfs.generated,
    }),
    root,
    disks: guestDisks(spec, facts.statefulDisk),
    statefulDiskMiB: spec.statefulDiskMiB,
    link,
    portForwards: spec.portForwards,
    vcpus: spec.vcpus,
    memoryMiB: spec.memoryMiB,
    ...(spec.maxVcpus === undefined ? {} : { maxVcpus: spec.maxVcpus }),
    ...(spec.maxMemoryMiB === undefined ? {} : { maxMemoryMiB: spec.maxMemoryMiB }),
  };
}
