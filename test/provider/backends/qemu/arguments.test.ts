import { assert, property, string } from "fast-check";
import { describe, expect, it } from "vitest";

import {
  forwardName,
  forwardRule,
  qemuArguments,
  type QemuSetting,
} from "../../../../provider/backends/qemu/arguments.js";
import { relayCommand } from "../../../../provider/backends/qemu/relay.js";
import type { BootConfiguration } from "../../../../provider/boot/boot.js";

const boot: BootConfiguration = {
  kernel: { path: "/boot/vmlinuz", sha256: "0".repeat(64) },
  cmdline: "console=ttyS0 root=/dev/nfs nfsroot=10.0.2.2:/srv,nfsvers=3,tcp rw panic=-1",
  root: {
    type: "nfs",
    server: "10.0.2.2",
    hostServer: "127.0.0.1",
    port: 2049,
    mountPort: "rpcbind",
    path: "/srv",
  },
  disks: [],
  statefulDiskMiB: 0,
  link: {
    kind: "user",
    guestAddress: "10.0.2.15",
    gatewayAddress: "10.0.2.2",
    prefixLength: 24,
    nameServers: ["10.0.2.3"],
  },
  portForwards: [],
  vcpus: 1,
  memoryMiB: 512,
};
const setting: QemuSetting = {
  vmName: "web",
  instance: "0123456789abcdef",
  machine: "q35",
  accelerator: "tcg",
  sandbox: true,
  paths: {
    kernel: "/state/web/kernel",
    controlSocket: "/run/pulumi-microvm/0123456789abcdef.sock",
    consoleLog: "/state/web/console.log",
  },
};

/** The value of an option. */
function after(name: string, args: readonly string[]): string {
  return args[args.indexOf(name) + 1] ?? "";
}

describe("qemuArguments", () => {
  it("gives the whole command line of an NFS root", () => {
    expect(qemuArguments(boot, setting)).toEqual(
      [
        ["-name", "guest=web"],
        ["-uuid", "01234567-89ab-8cde-8f00-000000000000"],
        ["-no-user-config", "-nodefaults", "-no-reboot", "-S"],
        ["-display", "none"],
        ["-machine", "q35"],
        ["-accel", "tcg"],
        ["-cpu", "max"],
        ["-smp", "1"],
        ["-m", "size=512M"],
        ["-kernel", "/state/web/kernel"],
        ["-append", boot.cmdline],
        ["-chardev", "file,id=console,path=/state/web/console.log"],
        ["-serial", "chardev:console"],
        ["-qmp", "unix:/run/pulumi-microvm/0123456789abcdef.sock,server=on,wait=off"],
        ["-netdev", "user,id=net0,net=10.0.2.0/24,host=10.0.2.2,dhcpstart=10.0.2.15,dns=10.0.2.3,ipv6=off"],
        ["-device", "virtio-net-pci,netdev=net0,romfile="],
        ["-device", "virtio-rng-pci"],
        ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
      ].flat(),
    );
  });

  it("gives the whole command line of a disk root on microvm under KVM", () => {
    const disks = [
      { path: "/images/root.img", readonly: true, numQueues: 2 },
      { path: "/state/web/stateful.img", numQueues: 2 },
    ] as const;
    const portForwards = [
      { hostPort: 8080, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" },
      { hostPort: 5353, guestPort: 53, protocol: "udp", hostAddress: "0.0.0.0" },
    ] as const;
    const cmdline = 'console=ttyS0 root=/dev/vda ro gateway_ip="10.0.2.2/24" panic=-1';
    const args = qemuArguments(
      { ...boot, cmdline, root: { type: "disk", rootfs: "/images/root.img" }, disks, portForwards, vcpus: 2 },
      {
        ...setting,
        machine: "microvm",
        accelerator: "kvm",
        sandbox: false,
        paths: { ...setting.paths, initramfs: "/state/web/initramfs" },
      },
    );
    expect(args).toEqual(
      [
        ["-name", "guest=web"],
        ["-uuid", "01234567-89ab-8cde-8f00-000000000000"],
        ["-no-user-config", "-nodefaults", "-no-reboot", "-S"],
        ["-display", "none"],
        ["-machine", "microvm,acpi=on,auto-kernel-cmdline=off"],
        ["-accel", "kvm"],
        ["-cpu", "host"],
        ["-smp", "2"],
        ["-m", "size=512M"],
        ["-kernel", "/state/web/kernel"],
        ["-initrd", "/state/web/initramfs"],
        ["-append", cmdline],
        ["-chardev", "file,id=console,path=/state/web/console.log"],
        ["-serial", "chardev:console"],
        ["-qmp", "unix:/run/pulumi-microvm/0123456789abcdef.sock,server=on,wait=off"],
        "-netdev",
        "user,id=net0,net=10.0.2.0/24,host=10.0.2.2,dhcpstart=10.0.2.15,dns=10.0.2.3,ipv6=off,hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80,hostfwd=udp:0.0.0.0:5353-10.0.2.15:53",
        ["-device", "virtio-net-device,netdev=net0"],
        [
          "-blockdev",
          "driver=raw,node-name=disk0,read-only=on,file.driver=file,file.filename=/images/root.img",
        ],
        ["-device", "virtio-blk-device,drive=disk0,num-queues=2"],
        [
          "-blockdev",
          "driver=raw,node-name=disk1,read-only=off,discard=unmap,file.driver=file,file.filename=/state/web/stateful.img",
        ],
        ["-device", "virtio-blk-device,drive=disk1,num-queues=2"],
        ["-device", "virtio-rng-device"],
      ].flat(),
    );
  });

  describe("for a guest that reaches its NFS root alone", () => {
    const alone: BootConfiguration = {
      ...boot,
      root: {
        type: "nfs",
        server: "10.0.2.100",
        hostServer: "192.0.2.7",
        port: 2049,
        mountPort: 20048,
        path: "/",
      },
      link: { ...boot.link, nameServers: [], nfsOnly: true },
      portForwards: [{ hostPort: 8080, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }],
    };

    it("restricts the network but for one relay to each port of the server, and port forwards", () => {
      const args = qemuArguments(alone, setting);
      expect(after("-netdev", args)).toBe(
        [
          "user,id=net0,net=10.0.2.0/24,host=10.0.2.2,dhcpstart=10.0.2.15,ipv6=off,restrict=on",
          "hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80",
          `guestfwd=tcp:10.0.2.100:2049-cmd:${relayCommand({ host: "192.0.2.7", port: 2049 })}`,
          `guestfwd=tcp:10.0.2.100:20048-cmd:${relayCommand({ host: "192.0.2.7", port: 20048 })}`,
        ].join(","),
      );
    });

    it("lets QEMU start relays, and nothing else that its sandbox can deny", () => {
      expect(after("-sandbox", qemuArguments(alone, setting))).toBe(
        "on,obsolete=deny,elevateprivileges=allow,spawn=allow,resourcecontrol=deny",
      );
    });

    it("forwards a port that serves both NFS and MOUNT once", () => {
      const root = { ...alone.root, mountPort: 2049 };
      expect(after("-netdev", qemuArguments({ ...alone, root }, setting)).split(",guestfwd=")).toHaveLength(
        2,
      );
    });

    it("forwards nothing, and lets QEMU start nothing, with a disk root", () => {
      const args = qemuArguments({ ...alone, root: { type: "disk", rootfs: "/images/root.img" } }, setting);
      expect(after("-netdev", args)).toBe(
        "user,id=net0,net=10.0.2.0/24,host=10.0.2.2,dhcpstart=10.0.2.15,ipv6=off,restrict=on,hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80",
      );
      expect(after("-sandbox", args)).toContain("spawn=deny");
    });

    it.each<[string, object]>([
      ["a port that only rpcbind knows", { mountPort: "rpcbind" }],
      ["a server that is no address", { hostServer: "127.0.0.1'; reboot" }],
    ])("refuses %s", (_what, root) => {
      const asked = { ...alone, root: { ...alone.root, ...root } } as BootConfiguration;
      expect(() => qemuArguments(asked, setting)).toThrow();
    });
  });

  it("doubles the commas of a path, so that it cannot add options", () => {
    const disks = [{ path: "/images/a,readonly=off,b.img", readonly: true, numQueues: 1 }] as const;
    const paths = { ...setting.paths, consoleLog: "/state,x=y/console.log", controlSocket: "/run/a,b.sock" };
    const args = qemuArguments({ ...boot, disks }, { ...setting, paths });
    expect(args).toContain(
      "driver=raw,node-name=disk0,read-only=on,file.driver=file,file.filename=/images/a,,readonly=off,,b.img",
    );
    expect(args).toContain("file,id=console,path=/state,,x=y/console.log");
    expect(args).toContain("unix:/run/a,,b.sock,server=on,wait=off");
  });

  it("gives the network's own address for any prefix", () => {
    const link = {
      ...boot.link,
      gatewayAddress: "172.16.37.1",
      guestAddress: "172.16.37.9",
      prefixLength: 20,
      nameServers: [],
    };
    expect(qemuArguments({ ...boot, link }, setting)).toContain(
      "user,id=net0,net=172.16.32.0/20,host=172.16.37.1,dhcpstart=172.16.37.9,ipv6=off",
    );
  });

  it.each([
    ["a relative path", { kernel: "kernel" }],
    ["a path with a line end", { kernel: "/state/a\nb" }],
    ["a path with a NUL", { consoleLog: "/state/\0" }],
  ])("refuses %s", (_what, paths) => {
    expect(() => qemuArguments(boot, { ...setting, paths: { ...setting.paths, ...paths } })).toThrow();
  });

  it.each<[string, Partial<BootConfiguration>]>([
    ["a command line with a line end", { cmdline: "a\nb" }],
    ["memory that is no number", { memoryMiB: Number.NaN }],
    ["half a vCPU", { vcpus: 0.5 }],
    ["an address with an option", { link: { ...boot.link, guestAddress: "10.0.2.15,x=y" } }],
    [
      "a port out of range",
      { portForwards: [{ hostPort: 65_536, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }] },
    ],
  ])("refuses %s", (_what, change) => {
    expect(() => qemuArguments({ ...boot, ...change }, setting)).toThrow();
  });

  it("lets no text become another argument or option", () => {
    assert(
      property(string({ unit: "binary" }), string(), (name, word) => {
        const disks = [{ path: `/images/${name}`, numQueues: 1 }];
        let args: string[];
        try {
          args = qemuArguments({ ...boot, disks, cmdline: `console=ttyS0 ${word}` }, setting);
        } catch {
          return; // refused
        }
        expect(args.length).toBe(
          qemuArguments({ ...boot, disks: [{ path: "/x", numQueues: 1 }] }, setting).length,
        );
        const blockdev = args[args.indexOf("-blockdev") + 1] ?? "";
        // A single comma separates options; what is doubled belongs to the value.
        const options = blockdev.split(/(?<!,)(?:,,)*,(?!,)/);
        expect(blockdev.replaceAll(",,", "").split(",").length).toBe(6);
        expect(options[0]).toBe("driver=raw");
        expect(args[args.indexOf("-append") + 1]).toBe(`console=ttyS0 ${word}`);
      }),
    );
  });
});

describe("port forwards", () => {
  const forward = { hostPort: 8080, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" } as const;

  it("are named as QEMU's monitor names them", () => {
    expect(forwardRule(forward, boot.link)).toBe("tcp:127.0.0.1:8080-10.0.2.15:80");
    expect(forwardName(forward)).toBe("tcp:127.0.0.1:8080");
  });

  it("are refused with an address that is none", () => {
    expect(() => forwardName({ ...forward, hostAddress: "localhost\nquit" })).toThrow(/not an IPv4 address/);
  });
});
