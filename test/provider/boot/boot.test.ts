import { describe, expect, it } from "vitest";
import { bootConfiguration } from "../../../provider/boot/boot.js";
import { guestDisks } from "../../../provider/boot/disks.js";
import {
  guestLink,
  isThisHost,
  netmask,
  seenFromGuest,
  seenFromHost,
  takeSamePort,
} from "../../../provider/boot/network.js";
import { diskSpec, nfsSpec } from "./sample-spec.js";

const kernel = { path: "/boot/vmlinuz", sha256: "a".repeat(64) };
const statefulDisk = "/path/to/stateful.img";

const factsWithInitramfs = (generated: boolean) => ({
  kernel,
  initramfs: { path: "/initramfs", sha256: "b".repeat(64), generated },
  statefulDisk,
});

const forward = (hostAddress: string, hostPort = 80, protocol: "tcp" | "udp" = "tcp") =>
  ({ hostAddress, hostPort, protocol, guestPort: 1 }) as const;

describe("the seed's lists of disks, to the letter", () => {
  it("of an NFS root", () => {
    expect(JSON.stringify(guestDisks(nfsSpec({ vcpus: 4, statefulDiskMiB: 2048 }), statefulDisk))).toBe(
      '[{"path":"/path/to/stateful.img","numQueues":4}]',
    );
  });

  it("of a disk root", () => {
    expect(JSON.stringify(guestDisks(diskSpec({ vcpus: 4, statefulDiskMiB: 2048 }), statefulDisk))).toBe(
      '[{"path":"/path/to/rootfs.img","readonly":true,"numQueues":4},{"path":"/path/to/stateful.img","numQueues":4}]',
    );
  });
});

describe("disks without a stateful one", () => {
  it("are none with an NFS root", () => {
    expect(guestDisks(nfsSpec(), statefulDisk)).toEqual([]);
  });

  it("are the read-only image with a disk root", () => {
    expect(guestDisks(diskSpec(), statefulDisk)).toEqual([
      { path: "/path/to/rootfs.img", readonly: true, numQueues: 1 },
    ]);
  });
});

describe("the boot configuration", () => {
  it("of an NFS root on this host, whole", () => {
    const spec = nfsSpec({
      vcpus: 2,
      statefulDiskMiB: 64,
      portForwards: [{ hostPort: 8080, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }],
    });
    expect(bootConfiguration(spec, { kernel, nfsServerAddress: "127.0.0.1", statefulDisk })).toEqual({
      kernel,
      initramfs: undefined,
      cmdline:
        'console=ttyS0 root=/dev/nfs nfsroot=10.0.2.2:/,nfsvers=3,tcp,nolock,port=11111,mountport=11111,rsize=1048576,wsize=1048576 ip=10.0.2.15::10.0.2.2:255.255.255.0:my-vm:eth0:off:10.0.2.3 rw gateway_ip="10.0.2.2/24" guest_ip="10.0.2.15/24" vm_name="my-vm" panic=-1',
      root: {
        type: "nfs",
        server: "10.0.2.2",
        hostServer: "127.0.0.1",
        port: 11111,
        mountPort: 11111,
        path: "/",
      },
      disks: [{ path: statefulDisk, numQueues: 2 }],
      statefulDiskMiB: 64,
      link: {
        kind: "user",
        guestAddress: "10.0.2.15",
        gatewayAddress: "10.0.2.2",
        prefixLength: 24,
        nameServers: ["10.0.2.3"],
      },
      portForwards: [{ hostPort: 8080, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }],
      vcpus: 2,
      memoryMiB: 512,
    });
  });

  it("gives the guest a server elsewhere under its own address", () => {
    const boot = bootConfiguration(nfsSpec({ nfsServer: "nfs.example" }), {
      kernel,
      nfsServerAddress: "192.0.2.7",
      statefulDisk,
    });
    expect(boot.root).toMatchObject({ server: "192.0.2.7", hostServer: "192.0.2.7" });
    expect(boot.cmdline).toContain(" nfsroot=192.0.2.7:/,");
  });

  it("gives a guest that reaches nothing else any server under one address, and no name server", () => {
    for (const [address, hostServer] of [
      ["127.0.0.1", "127.0.0.1"],
      ["192.0.2.7", "192.0.2.7"],
    ] as const) {
      const boot = bootConfiguration(nfsSpec({ guestAccess: "nfs-only" }), {
        kernel,
        nfsServerAddress: address,
        statefulDisk,
      });
      expect(boot.root).toMatchObject({ server: "10.0.2.100", hostServer });
      expect(boot.cmdline).toBe(
        'console=ttyS0 root=/dev/nfs nfsroot=10.0.2.100:/,nfsvers=3,tcp,nolock,port=11111,mountport=11111,rsize=1048576,wsize=1048576 ip=10.0.2.15::10.0.2.2:255.255.255.0:my-vm:eth0:off rw gateway_ip="10.0.2.2/24" guest_ip="10.0.2.15/24" vm_name="my-vm" panic=-1',
      );
      expect(boot.link).toMatchObject({ nfsOnly: true, nameServers: [] });
    }
  });

  it("of a disk root names /dev/vda with an initramfs of ours, and not with the person's", () => {
    expect(bootConfiguration(diskSpec(), factsWithInitramfs(true)).cmdline).toContain(" root=/dev/vda ro ");
    const own = bootConfiguration(diskSpec(), factsWithInitramfs(false));
    expect(own.cmdline).not.toContain("root=");
    expect(own.initramfs).toEqual({ path: "/initramfs", sha256: "b".repeat(64), generated: false });
    expect(own.root).toEqual({ type: "disk", rootfs: "/path/to/rootfs.img" });
  });

  it("is the same for the same arguments", () => {
    const facts = { kernel, nfsServerAddress: "127.0.0.1", statefulDisk };
    expect(bootConfiguration(nfsSpec(), facts)).toEqual(bootConfiguration(nfsSpec(), facts));
  });
});

describe("the guest's link", () => {
  const link = guestLink(nfsSpec());

  it.each([
    ["127.0.0.1", true],
    ["127.9.9.9", true],
    ["0.0.0.0", true],
    ["10.0.2.2", false],
    ["128.0.0.1", false],
  ])("knows whether %s is this host", (address, expected) => {
    expect(isThisHost(address)).toBe(expected);
  });

  it.each([
    ["127.0.0.1", "10.0.2.2", "127.0.0.1"],
    ["0.0.0.0", "10.0.2.2", "127.0.0.1"],
    ["10.0.2.2", "10.0.2.2", "127.0.0.1"],
    ["192.0.2.7", "192.0.2.7", "192.0.2.7"],
  ])("shows a server at %s to the guest as %s and to this host as %s", (address, guest, host) => {
    expect(seenFromGuest(address, link)).toBe(guest);
    expect(seenFromHost(address, link)).toBe(host);
  });

  it.each([
    [0, "0.0.0.0"],
    [1, "128.0.0.0"],
    [8, "255.0.0.0"],
    [24, "255.255.255.0"],
    [30, "255.255.255.252"],
    [32, "255.255.255.255"],
  ])("writes a prefix of %i bits as netmask %s", (bits, mask) => {
    expect(netmask(bits)).toBe(mask);
  });

  it.each([
    ["the same address and port", forward("127.0.0.1"), forward("127.0.0.1"), true],
    ["the wildcard address", forward("127.0.0.1"), forward("0.0.0.0"), true],
    ["another address", forward("127.0.0.1"), forward("127.0.0.2"), false],
    ["another port", forward("127.0.0.1"), forward("127.0.0.1", 81), false],
    ["another protocol", forward("127.0.0.1"), forward("127.0.0.1", 80, "udp"), false],
  ])("sees whether two forwards take one port: %s", (_, one, other, expected) => {
    expect(takeSamePort(one, other)).toBe(expected);
    expect(takeSamePort(other, one)).toBe(expected);
  });
});
