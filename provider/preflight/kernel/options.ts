/**
 * The table of kernel options that a boot leans on: which, when, and why.
 *
 * Sources: the Kconfig files of Linux 6.1 to 6.12, Documentation/admin-guide/nfs/nfsroot.rst,
 * Documentation/filesystems/ramfs-rootfs-initramfs.rst.
 */

/** What a boot asks of a kernel. */
export interface BootNeed {
  /** Where the root file system is. */
  readonly root: "nfs" | "disk";
  /** Whether the guest asks a DHCP server for its address (`ip=dhcp`). */
  readonly dhcp: boolean;
  /** The kind of machine: microvm has memory-mapped virtio devices, the others have them on PCI. The first three are QEMU's. */
  readonly machine: "q35" | "microvm" | "virt" | "cloud-hypervisor";
  /** Whether the guest has any disk. */
  readonly disks: boolean;
  /** Whether a stateful disk is laid over a read-only root disk, which only an initramfs can do. */
  readonly overlay: boolean;
  /** Whether the person gave an initramfs of their own, which then has to bring what the kernel lacks. */
  readonly ownInitramfs: boolean;
  /** What the guest has, or may be given while it runs, beyond one vCPU and its first memory; nothing by default. */
  readonly size?: {
    readonly severalVcpus: boolean;
    readonly moreVcpus: boolean;
    readonly moreMemory: boolean;
  };
}

/** One option, or several of which any one will do. */
export interface OptionRule {
  /** Names without `CONFIG_`; one of them has to be set. */
  readonly anyOf: readonly [string, ...string[]];
  /** The module that the option makes where it is `m`; absent where it cannot be a module or comes too late as one. */
  readonly module?: string;
  /** What it is for, as a part of a sentence: "to …". */
  readonly reason: string;
  /** Whether a boot of this kind needs it. */
  readonly when: (need: BootNeed) => boolean;
}

const always = (): boolean => true;
const fromNfs = (need: BootNeed): boolean => need.root === "nfs";
const overPci = (need: BootNeed): boolean => need.machine !== "microvm";
const overMmio = (need: BootNeed): boolean => need.machine === "microvm";
const isX86 = (need: BootNeed): boolean => need.machine !== "virt";

/** Built in, or there is no boot: no initramfs can bring these. */
export const builtInRules: readonly OptionRule[] = [
  { anyOf: ["BINFMT_ELF"], reason: "to run programs", when: always },
  { anyOf: ["SERIAL_8250_CONSOLE"], reason: "to print to the serial console ttyS0", when: isX86 },
  {
    anyOf: ["SERIAL_AMBA_PL011_CONSOLE"],
    reason: "to print to the serial console ttyAMA0",
    when: (need) => !isX86(need),
  },
  { anyOf: ["PRINTK"], reason: "to print to the console, where the boot is followed", when: always },
  { anyOf: ["PCI"], reason: "to see virtio devices on a PCI machine", when: overPci },
  {
    anyOf: ["ACPI", "VIRTIO_MMIO_CMDLINE_DEVICES"],
    reason: "to learn of the virtio devices of a microvm machine",
    when: overMmio,
  },
  {
    anyOf: ["ACPI"],
    reason: "to learn of the devices of a Cloud Hypervisor machine",
    when: (need) => need.machine === "cloud-hypervisor",
  },
  { anyOf: ["NET"], reason: "to have a network", when: fromNfs },
  { anyOf: ["INET"], reason: "to speak TCP/IP", when: fromNfs },
];

/** Built in, or as a module in an initramfs. */
export const driverRules: readonly OptionRule[] = [
  { anyOf: ["VIRTIO_PCI"], module: "virtio_pci", reason: "to drive virtio devices on PCI", when: overPci },
  {
    anyOf: ["VIRTIO_MMIO"],
    module: "virtio_mmio",
    reason: "to drive memory-mapped virtio devices",
    when: overMmio,
  },
  { anyOf: ["VIRTIO_NET"], module: "virtio_net", reason: "to drive the network interface", when: fromNfs },
  {
    anyOf: ["VIRTIO_BLK"],
    module: "virtio_blk",
    reason: "to drive the disks",
    when: (need) => need.disks || need.root === "disk",
  },
  { anyOf: ["NFS_FS"], module: "nfs", reason: "to mount NFS", when: fromNfs },
  { anyOf: ["NFS_V3"], module: "nfsv3", reason: "to mount NFS version 3", when: fromNfs },
  {
    anyOf: ["EXT4_FS"],
    module: "ext4",
    reason: "to mount the root disk",
    when: (need) => need.root === "disk",
  },
  {
    anyOf: ["OVERLAY_FS"],
    module: "overlay",
    reason: "to lay the stateful disk over the root disk",
    when: (need) => need.overlay,
  },
];

/** What the kernel needs to find its root by itself; an initramfs does the same from user space. */
export const aloneRules: readonly OptionRule[] = [
  { anyOf: ["ROOT_NFS"], reason: "to mount an NFS root by itself", when: fromNfs },
  { anyOf: ["IP_PNP"], reason: "to configure the network from ip= by itself", when: fromNfs },
  {
    anyOf: ["IP_PNP_DHCP"],
    reason: "to ask a DHCP server by itself",
    when: (need) => fromNfs(need) && need.dhcp,
  },
];

/** What the kernel needs so that an initramfs can be used at all. */
export const anyInitramfsRules: readonly OptionRule[] = [
  { anyOf: ["BLK_DEV_INITRD"], reason: "to start from an initramfs", when: always },
];

/** What our own initramfs needs beyond that. */
export const generatedInitramfsRules: readonly OptionRule[] = [
  { anyOf: ["BINFMT_SCRIPT"], reason: "to run the initramfs' init, a shell script", when: always },
  { anyOf: ["DEVTMPFS"], reason: "to have device files in the initramfs", when: always },
  { anyOf: ["PROC_FS"], reason: "to read the command line in the initramfs", when: always },
  { anyOf: ["SYSFS"], reason: "to find the network interface in the initramfs", when: always },
  {
    anyOf: ["PACKET"],
    module: "af_packet",
    reason: "to ask a DHCP server from the initramfs",
    when: (need) => fromNfs(need) && need.dhcp,
  },
];

/** Not needed for a boot, but missed later. Where one is a module, our initramfs loads it. */
export const comfortRules: readonly OptionRule[] = [
  {
    anyOf: ["VIRTIO_NET"],
    module: "virtio_net",
    reason: "to reach the guest over its network interface",
    when: (need) => !fromNfs(need),
  },
  {
    anyOf: ["ACPI_BUTTON"],
    module: "button",
    reason: "to hear the power button, so a power-off is forced after its timeout",
    when: always,
  },
  {
    anyOf: ["INPUT_EVDEV"],
    module: "evdev",
    reason: "to pass the power button to user space, so a power-off is forced after its timeout",
    when: always,
  },
  {
    // Its MADT (ACPI 6.5, section 5.2.12) names processors by x2APIC alone; others the kernel passes over.
    anyOf: ["X86_X2APIC"],
    reason: "to use more than one vCPU of Cloud Hypervisor",
    when: (need) => need.machine === "cloud-hypervisor" && need.size?.severalVcpus === true,
  },
  {
    anyOf: ["ACPI_HOTPLUG_CPU"],
    reason: "to take vCPUs that are added while it runs",
    when: (need) => need.size?.moreVcpus === true,
  },
  {
    anyOf: ["ACPI_HOTPLUG_MEMORY"],
    reason: "to take memory that is added while it runs",
    when: (need) => need.size?.moreMemory === true,
  },
];
