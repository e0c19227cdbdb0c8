import { describe, expect, it } from "vitest";

import { diskId, resizeOf, vmConfig } from "../../../../provider/backends/cloud-hypervisor/config.js";
import { VmConfig } from "../../../../provider/backends/cloud-hypervisor/schemas.js";
import { diskSpec, nfsSpec } from "../../boot/sample-spec.js";
import { backend, sampleLaunch } from "./sample-launch.js";

describe("vmConfig", () => {
  it("gives a VM on an NFS root its kernel, command line, tap, vsock and console, and nothing else", () => {
    const asked = sampleLaunch(nfsSpec({ backend }));
    const { link, cmdline } = asked.boot;
    expect(vmConfig(asked, true)).toMatchObject({
      payload: { kernel: "/state/my-vm/kernel", cmdline },
      cpus: { boot_vcpus: 1, max_vcpus: 1 },
      memory: { size: 512 * 1024 * 1024 },
      net: [{ id: "net0", tap: "mvm0123456789ab", mac: link.kind === "tap" ? link.mac : "", num_queues: 2 }],
      rng: { src: "/dev/urandom" },
      serial: { mode: "File", file: "/state/my-vm/serial/console" },
      console: { mode: "Off" },
      vsock: { cid: 4711, socket: "/run/x.vs/s" },
      landlock_enable: true,
    });
    expect(vmConfig(asked, true)).not.toHaveProperty("disks");
    expect(vmConfig(asked, true)).not.toHaveProperty("payload.initramfs");
    expect(vmConfig(asked, true)).not.toHaveProperty("memory.hotplug_size");
  });

  it("gives a disk root its disks in the guest's order, with a queue for each vCPU", () => {
    const asked = sampleLaunch(
      diskSpec({ backend, vcpus: 2, statefulDiskMiB: 64 }),
      "/state/my-vm/initramfs",
    );
    expect(vmConfig(asked, true)).toMatchObject({
      payload: { initramfs: "/state/my-vm/initramfs" },
      disks: [
        { id: "disk0", path: "/path/to/rootfs.img", readonly: true, num_queues: 2, image_type: "Raw" },
        { id: "disk1", path: "/state/my-vm/stateful.img", num_queues: 2, image_type: "Raw" },
      ],
      net: [{ num_queues: 4 }],
    });
    expect(diskId(1)).toBe("disk1");
  });

  it("shares the guest's memory with passt, and with nothing else", () => {
    const asked = sampleLaunch(nfsSpec({ backend, network: { passt: true } }));
    const network = { vhostSocket: "/run/x.net", vsockCid: 4711 };
    expect(vmConfig({ ...asked, network }, true)).toMatchObject({
      memory: { size: 512 * 1024 * 1024, shared: true },
      net: [{ vhost_user: true, vhost_socket: "/run/x.net", num_queues: 2 }],
    });
    expect(VmConfig.safeParse(vmConfig({ ...asked, network }, true)).success).toBe(true);
    expect(vmConfig(sampleLaunch(nfsSpec({ backend })), true)).not.toHaveProperty("memory.shared");
  });

  it("makes room for what may come", () => {
    const room = sampleLaunch(
      nfsSpec({ backend, vcpus: 2, maxVcpus: 8, memoryMiB: 512, maxMemoryMiB: 1100 }),
    );
    const mib = 1024 * 1024;
    // Four blocks of 128 MiB fit, and one more for where they begin.
    expect(vmConfig(room, true)).toMatchObject({
      cpus: { boot_vcpus: 2, max_vcpus: 8 },
      memory: { size: 512 * mib, hotplug_size: 5 * 128 * mib },
    });
    const none = sampleLaunch(nfsSpec({ backend, memoryMiB: 512, maxMemoryMiB: 600 }));
    expect(vmConfig(none, true)).not.toHaveProperty("memory.hotplug_size");
  });

  it("is what the schema takes", () => {
    for (const spec of [nfsSpec({ backend }), diskSpec({ backend, statefulDiskMiB: 64, maxVcpus: 4 })]) {
      expect(VmConfig.safeParse(vmConfig(sampleLaunch(spec), false)).success).toBe(true);
    }
  });

  it("refuses a VM without a tap", () => {
    expect(() => vmConfig({ ...sampleLaunch(nfsSpec({ backend })), network: undefined }, true)).toThrow(
      /needs a network/,
    );
  });
});

describe("resizeOf", () => {
  it("asks for vCPUs and bytes", () => {
    expect(resizeOf({ vcpus: 3, memoryMiB: 1024 })).toEqual({ desired_vcpus: 3, desired_ram: 2 ** 30 });
  });
});
