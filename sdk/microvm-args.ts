/** What a program can say of a MicroVm. */

import type * as pulumi from "@pulumi/pulumi";

/** Runs the VM on QEMU, on this host. */
export interface QemuBackendArgs {
  type: "qemu";
  /** QEMU's machine type. Default: `"q35"`. */
  machine?: pulumi.Input<"q35" | "microvm">;
  /** `"auto"` (default): KVM where it can run a guest, else emulation (TCG). */
  accelerator?: pulumi.Input<"auto" | "kvm" | "tcg">;
  /** Absolute path of the program. Default: `$MICROVM_QEMU`, else `qemu-system-x86_64` on PATH. */
  binary?: pulumi.Input<string>;
}

/** Runs the VM on Cloud Hypervisor, on this host. It needs KVM, and the right to make a bridge and a tap. */
export interface CloudHypervisorBackendArgs {
  type: "cloud-hypervisor";
  /** Absolute path of the program. Default: `$CLOUD_HYPERVISOR`, else `cloud-hypervisor` on PATH. */
  binary?: pulumi.Input<string>;
  /**
   * Absolute path of the API socket of a Cloud Hypervisor that somebody else has started, as root or this user, and keeps running: the
   * VM is put into it, its process and its network stay its owner's. Needs `network.tap`. Default: one is started for the VM.
   */
  apiSocket?: pulumi.Input<string>;
}

/**
 * Has a server run the VM: Arrakis, or `microvm-restserver`. Paths are those of the server's host. What its API has no field for (vCPUs,
 * memory, disks, ports, networks) the server decides; what only a server of this project knows is refused by the preview elsewhere.
 */
export interface ArrakisBackendArgs {
  type: "arrakis";
  /** `http://HOST:PORT`, `https://HOST:PORT`, or `unix://` and the absolute path of a socket. Another one makes the VM anew. */
  url: pulumi.Input<string>;
  /** Bearer token; kept as a secret in any case. */
  token?: pulumi.Input<string>;
  /** Absolute path of a PEM file with the certificates that the server's may be signed by. Default: Node's own. */
  caFile?: pulumi.Input<string>;
}

/** The network of a VM on Cloud Hypervisor: a bridge and a tap, or the user network of passt. */
export interface NetworkArgs {
  /** Name of the bridge; made where it is not there. Default: `"microvm0"`. */
  bridge?: pulumi.Input<string>;
  /** Name of an existing tap, used and left as it is. Default: one is made for the VM. */
  tap?: pulumi.Input<string>;
  /**
   * IPv4 network of the bridge in CIDR form. This host has its first address, or the one that stands there. Default: `"10.20.1.1/16"`,
   * large enough that the addresses of VMs, which follow from their names, hardly ever meet.
   */
  subnet?: pulumi.Input<string>;
  /**
   * Whether the guest is on a user network by passt(1), which takes no rights, instead of a bridge and a tap: this host's loopback
   * services are at 10.0.2.2, a change of `portForwards` is a replace. Needs a passt of December 2024 or later. Default: `false`.
   */
  passt?: pulumi.Input<boolean>;
}

/** A port of this host that leads to a port of the guest. */
export interface PortForwardArgs {
  /** Port on the host, 1 to 65535. */
  hostPort: pulumi.Input<number>;
  /** Port in the guest, 1 to 65535. */
  guestPort: pulumi.Input<number>;
  /** Default: `"tcp"`. */
  protocol?: pulumi.Input<"tcp" | "udp">;
  /** IPv4 address of the host that listens. Default: `"127.0.0.1"`. */
  hostAddress?: pulumi.Input<string>;
}

/** When a guest counts as ready. */
export interface ReadinessArgs {
  /** How long the guest may take to prove its root, in seconds. Default: 120. */
  timeoutSeconds?: pulumi.Input<number>;
  /** Regular expression that a console line must match, instead of any output of user space. Not on a server. */
  console?: pulumi.Input<string>;
  /** Whether a guest on a server that cannot be asked what its root is fails the `up`. Default: false, a warning. */
  required?: pulumi.Input<boolean>;
}

/**
 * Arguments of a `MicroVm`. One that is left out comes from the stack configuration (`microvm:nfsServer` …), then
 * from the file named by `configFile`, then from its default.
 */
export interface MicroVmArgs {
  /** Name of the VM, unique on its host: one DNS label. Default: the resource's name and 8 hex digits. */
  vmName?: pulumi.Input<string>;
  /** Absolute path of a kernel image on this host. Required, here or elsewhere. */
  kernel?: pulumi.Input<string>;
  /** Absolute path of an initramfs. Default: none, or one that is made from the kernel's modules where it needs them. */
  initramfs?: pulumi.Input<string>;
  /** Absolute path of a raw ext4 image, the read-only root of a disk boot. Ignored with an NFS root. */
  rootfs?: pulumi.Input<string>;
  /** Handed to the guest as `entry_point="…"` on the kernel command line. */
  entryPoint?: pulumi.Input<string>;
  /**
   * Id of a `MicroVmSnapshot` on this host: the VM is made from it instead of booting, with the inputs that the snapshot's VM had. Not on
   * the `qemu` back end. A VM that is stopped starts from its kernel, as any other.
   */
  snapshotId?: pulumi.Input<string>;
  /**
   * Whether the snapshot may be restored onto a writable NFS root: the guest goes on from the past, and writes over what happened there
   * since. Default: false.
   */
  acceptStaleRoot?: pulumi.Input<boolean>;
  /** Whether the root file system is mounted over NFS. Default: false. */
  useNfsRoot?: pulumi.Input<boolean>;
  /** Host name or IPv4 address of the NFS server. A loopback address means this host. */
  nfsServer?: pulumi.Input<string>;
  /** TCP port of the NFS server, 1 to 65535. */
  nfsPort?: pulumi.Input<number>;
  /** Path of the export. Default: `"/"`. */
  nfsPath?: pulumi.Input<string>;
  /** TCP port of mountd, or `"rpcbind"`. Default: `nfsPort`, or `"rpcbind"` when that is 2049. */
  nfsMountPort?: pulumi.Input<number | "rpcbind">;
  /** More NFS mount options. Default: `"rsize=1048576,wsize=1048576"`, added unless named; `""` adds nothing. */
  nfsOptions?: pulumi.Input<string>;
  /**
   * Id of the `AgentFs` or `NfsExport` that serves the root, as its `root` gives it: where that is made anew, so is the VM. Default: none,
   * for a server of your own.
   */
  nfsExport?: pulumi.Input<string>;
  /** More words for the kernel command line. Default: `["panic=-1"]`, added unless named; `[]` adds nothing. */
  kernelArgs?: pulumi.Input<pulumi.Input<string>[]>;
  /** `"static"` (default), `"dhcp"`, or the guest's IPv4 address on its link. */
  ip?: pulumi.Input<string>;
  /** Number of virtual CPUs. Default: 1. On Cloud Hypervisor they grow in place up to `maxVcpus`. */
  vcpus?: pulumi.Input<number>;
  /** Memory of the guest in MiB. Default: 512. On Cloud Hypervisor it grows in place up to `maxMemoryMiB`, by multiples of 128. */
  memoryMiB?: pulumi.Input<number>;
  /** vCPUs that the VM can grow to without a replace. Not on the `qemu` back end. */
  maxVcpus?: pulumi.Input<number>;
  /** Memory in MiB that the VM can grow to without a replace. Not on the `qemu` back end. */
  maxMemoryMiB?: pulumi.Input<number>;
  /** Size of the VM's own disk in MiB, 0 (default) for none. It goes when the VM goes. */
  statefulDiskMiB?: pulumi.Input<number>;
  /** Host ports that lead to guest ports. Default: none. */
  portForwards?: pulumi.Input<pulumi.Input<PortForwardArgs>[]>;
  /** The bridge or tap of a Cloud Hypervisor VM. Not on the `qemu` back end. */
  network?: pulumi.Input<NetworkArgs>;
  /**
   * What the guest can reach. Default: `"internet"`, which on QEMU includes this host's loopback services. `"nfs-only"`: the
   * NFS server of its root, on `nfsPort` and `nfsMountPort`, and nothing else.
   */
  guestAccess?: pulumi.Input<"internet" | "nfs-only">;
  /** Default: `"running"`. */
  powerState?: pulumi.Input<"running" | "paused" | "stopped">;
  /** When the guest counts as ready. */
  readiness?: pulumi.Input<ReadinessArgs>;
  /** How long an orderly power-off may take before it is forced, in seconds. Default: 10. */
  shutdownTimeoutSeconds?: pulumi.Input<number>;
  /** What runs the VM. Default: `{ type: "qemu" }`. */
  backend?: QemuBackendArgs | CloudHypervisorBackendArgs | ArrakisBackendArgs;
  /** Absolute path of an Arrakis config.yaml whose values count where nothing else is given. */
  configFile?: pulumi.Input<string>;
  /** What a certain finding before the boot is. Default: `"error"`. */
  preflight?: pulumi.Input<"error" | "warn" | "off">;
}
