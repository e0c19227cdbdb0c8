import { describe, expect, it } from "vitest";
import { type BootNeed, bootNeeds, describeLack } from "../../../../provider/preflight/kernel/boot-needs.js";
import { parseConfiguration } from "../../../../provider/preflight/kernel/configuration.js";
import type { KernelFacts } from "../../../../provider/preflight/kernel/inspect.js";

const NFS: BootNeed = {
  root: "nfs",
  dhcp: false,
  machine: "q35",
  disks: false,
  overlay: false,
  ownInitramfs: false,
};
const DISK: BootNeed = { ...NFS, root: "disk", disks: true };

const base =
  "BINFMT_ELF BINFMT_SCRIPT SERIAL_8250_CONSOLE PRINTK PCI ACPI NET INET BLK_DEV_INITRD DEVTMPFS PROC_FS SYSFS PACKET";
const drivers =
  "VIRTIO_PCI VIRTIO_MMIO VIRTIO_NET VIRTIO_BLK NFS_FS NFS_V3 EXT4_FS OVERLAY_FS ACPI_BUTTON INPUT_EVDEV";
const alone = "ROOT_NFS IP_PNP IP_PNP_DHCP";

function options(builtIn: string, modules = "", without: readonly string[] = []): string {
  const lines = (names: string, value: string): string[] =>
    names
      .split(" ")
      .filter((name) => name !== "" && !without.includes(name))
      .map((name) => `CONFIG_${name}=${value}`);
  return [...lines(builtIn, "y"), ...lines(modules, "m")].join("\n");
}

function kernel(configuration: string, facts: Partial<KernelFacts> = {}): KernelFacts {
  return {
    path: "/k",
    realPath: "/k",
    processor: "x86_64",
    format: "bzImage",
    release: "6.1.0",
    configuration: { found: true, source: "image", options: parseConfiguration(configuration) },
    ...facts,
  };
}

/** Names of the options that are missing, or the kind of another verdict. */
function missing(configuration: string, need: BootNeed, facts: Partial<KernelFacts> = {}): string[] {
  const verdict = bootNeeds(kernel(configuration, facts), need);
  return verdict.kind === "cannot" ? verdict.missing.map(({ option }) => option) : [verdict.kind];
}

const everything = kernel(options(`${base} ${drivers} ${alone}`));
const stock = kernel(options(base, drivers));

describe("a kernel with everything built in", () => {
  it.each([NFS, { ...NFS, dhcp: true, disks: true }, { ...NFS, machine: "microvm" as const }, DISK])(
    "boots alone: %j",
    (need) => {
      expect(bootNeeds(everything, need)).toEqual({ kind: "boots", remarks: [] });
    },
  );

  it("needs an initramfs without modules to lay a stateful disk over its root", () => {
    expect(bootNeeds(everything, { ...DISK, overlay: true })).toEqual({
      kind: "initramfs",
      modules: [],
      optionalModules: [],
      because: [],
      remarks: [],
    });
  });
});

describe("a stock kernel with drivers as modules", () => {
  it("needs an initramfs with the modules of the machine, the network and NFS", () => {
    const verdict = bootNeeds(stock, NFS);
    expect(verdict).toMatchObject({
      kind: "initramfs",
      modules: ["virtio_pci", "virtio_net", "nfs", "nfsv3"],
      optionalModules: ["button", "evdev"],
      remarks: [],
    });
    const reasons = verdict.kind === "initramfs" ? verdict.because.map(describeLack) : [];
    expect(reasons).toContain("CONFIG_NFS_FS is m: needed to mount NFS");
    expect(reasons).toContain("CONFIG_ROOT_NFS is not set: needed to mount an NFS root by itself");
  });

  it("takes virtio_mmio on a microvm machine, and virtio_blk where there are disks", () => {
    expect(bootNeeds(stock, { ...NFS, machine: "microvm", disks: true })).toMatchObject({
      modules: ["virtio_mmio", "virtio_net", "virtio_blk", "nfs", "nfsv3"],
    });
  });

  it("takes the disk's modules for a disk root, and the network's where it can", () => {
    expect(bootNeeds(stock, { ...DISK, overlay: true })).toMatchObject({
      modules: ["virtio_pci", "virtio_blk", "ext4", "overlay"],
      optionalModules: ["virtio_net", "button", "evdev"],
    });
  });

  it("takes af_packet for DHCP where packet sockets are a module", () => {
    const packetModule = kernel(options(base, `${drivers} PACKET`, ["PACKET"]) + "\nCONFIG_PACKET=m");
    expect(bootNeeds(packetModule, { ...NFS, dhcp: true })).toMatchObject({
      modules: ["virtio_pci", "virtio_net", "nfs", "nfsv3", "af_packet"],
    });
  });

  it("with NFS and virtio built in but no ROOT_NFS needs an initramfs without their modules", () => {
    const verdict = bootNeeds(kernel(options(`${base} ${drivers}`)), NFS);
    expect(verdict).toMatchObject({ kind: "initramfs", modules: [], optionalModules: [] });
  });
});

describe("a kernel that cannot boot", () => {
  it("lacks the NFS client altogether", () => {
    expect(missing(options(base, drivers, ["NFS_FS", "NFS_V3"]), NFS)).toEqual([
      "CONFIG_NFS_FS",
      "CONFIG_NFS_V3",
    ]);
  });

  it("lacks the serial console, even with an initramfs of the person's own", () => {
    const configuration = options(`${base} ${drivers} ${alone}`, "", ["SERIAL_8250_CONSOLE"]);
    expect(missing(configuration, NFS)).toEqual(["CONFIG_SERIAL_8250_CONSOLE"]);
    expect(missing(configuration, { ...NFS, ownInitramfs: true })).toEqual(["CONFIG_SERIAL_8250_CONSOLE"]);
  });

  it("cannot use the initramfs that it needs", () => {
    expect(missing(options(base, drivers, ["BLK_DEV_INITRD"]), NFS)).toEqual(["CONFIG_BLK_DEV_INITRD"]);
  });

  it("has no way to find the devices of a microvm machine", () => {
    const configuration = options(`${base} ${drivers} ${alone}`, "", ["ACPI", "ACPI_BUTTON"]);
    expect(missing(configuration, { ...NFS, machine: "microvm" })).toEqual([
      "CONFIG_ACPI or CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES",
    ]);
  });

  it("is a vmlinux without PVH", () => {
    const configuration = options(`${base} ${drivers} ${alone}`);
    expect(missing(configuration, NFS, { format: "vmlinux" })).toEqual(["CONFIG_PVH"]);
    expect(missing(`${configuration}\nCONFIG_PVH=y`, NFS, { format: "vmlinux" })).toEqual(["boots"]);
  });
});

describe("beside the verdict", () => {
  it("an own initramfs has to bring what the kernel lacks, so modules are no matter", () => {
    expect(bootNeeds(stock, { ...NFS, ownInitramfs: true })).toEqual({ kind: "boots", remarks: [] });
  });

  it("a kernel that never hears the power button is remarked upon", () => {
    const deaf = kernel(options(`${base} ${drivers} ${alone}`, "", ["INPUT_EVDEV"]));
    const verdict = bootNeeds(deaf, NFS);
    expect(verdict.kind).toBe("boots");
    expect(verdict.remarks.join()).toContain("CONFIG_INPUT_EVDEV not set");
  });

  it("a kernel that cannot use what a VM is given or may be given on Cloud Hypervisor is remarked upon", () => {
    const need = { ...NFS, machine: "cloud-hypervisor" } as const;
    const remarks = (size: BootNeed["size"]) => bootNeeds(everything, { ...need, size }).remarks;
    expect(remarks({ severalVcpus: false, moreVcpus: false, moreMemory: false })).toEqual([]);
    expect(remarks({ severalVcpus: true, moreVcpus: true, moreMemory: true })).toEqual([
      expect.stringContaining("CONFIG_X86_X2APIC not set, which is needed to use more than one vCPU"),
      expect.stringContaining("CONFIG_ACPI_HOTPLUG_CPU not set"),
      expect.stringContaining("CONFIG_ACPI_HOTPLUG_MEMORY not set"),
    ]);
  });

  it("no configuration is a verdict of its own", () => {
    const facts = kernel("", { configuration: { found: false, reason: "nowhere" } });
    expect(bootNeeds(facts, NFS)).toEqual({ kind: "unknown", reason: "nowhere", remarks: [] });
  });
});
