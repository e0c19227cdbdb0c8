import { describe, expect, it } from "vitest";
import {
  commandLine,
  LINE_LIMIT_BYTES,
  NFS_OPTIONS_LIMIT_BYTES,
  NFSROOT_LIMIT_BYTES,
  UNKNOWN_WORDS_LIMIT,
  withTransferSizes,
} from "../../../provider/boot/cmdline.js";
import { guestLink } from "../../../provider/boot/network.js";
import type { Spec } from "../../../provider/spec/spec.js";
import { diskSpec, nfsSpec, seedLink } from "./sample-spec.js";

/** The line on QEMU's user network, for a server that the guest reaches as 10.0.2.2. */
const line = (spec: Spec, ownInitramfs = false) =>
  commandLine({
    spec,
    link: guestLink(spec),
    nfsServerAddress: spec.useNfsRoot ? "10.0.2.2" : undefined,
    ownInitramfs,
  });

/** Words that no kernel knows. */
const words = (count: number) => Array.from({ length: count }, (_, index) => `w${index}=1`);

const refusal = (spec: Spec) => {
  try {
    return line(spec);
  } catch (error) {
    return (error as Error).message;
  }
};

describe("the seed's command lines, to the letter", () => {
  it("of an NFS root", () => {
    const spec = nfsSpec({ nfsMountPort: "rpcbind", nfsOptions: "", ip: "dhcp", kernelArgs: [] });
    expect(commandLine({ spec, link: seedLink, nfsServerAddress: "127.0.0.1", ownInitramfs: false })).toBe(
      'console=ttyS0 root=/dev/nfs nfsroot=127.0.0.1:/,nfsvers=3,tcp,nolock,port=11111 ip=dhcp rw gateway_ip="10.20.1.1" guest_ip="10.20.1.2" vm_name="my-vm"',
    );
  });

  it("of a disk root", () => {
    const spec = diskSpec({ kernelArgs: [] });
    expect(commandLine({ spec, link: seedLink, ownInitramfs: true })).toBe(
      'console=ttyS0 gateway_ip="10.20.1.1" guest_ip="10.20.1.2" vm_name="my-vm"',
    );
  });
});

describe("our command lines, to the letter", () => {
  it("of an NFS root", () => {
    expect(line(nfsSpec())).toBe(
      'console=ttyS0 root=/dev/nfs nfsroot=10.0.2.2:/,nfsvers=3,tcp,nolock,port=11111,mountport=11111,rsize=1048576,wsize=1048576 ip=10.0.2.15::10.0.2.2:255.255.255.0:my-vm:eth0:off:10.0.2.3 rw gateway_ip="10.0.2.2/24" guest_ip="10.0.2.15/24" vm_name="my-vm" panic=-1',
    );
  });

  it("of an NFS root on the standard port, with all that a person can add", () => {
    const spec = nfsSpec({
      nfsPort: 2049,
      nfsMountPort: "rpcbind",
      nfsPath: "/exports/vm-root",
      nfsOptions: "rsize=1048576,wsize=1048576,nconnect=2",
      ip: "10.0.2.77",
      entryPoint: "/usr/bin/agent",
      kernelArgs: ["panic=-1", "init=/sbin/tini", "mitigations=off"],
    });
    expect(line(spec)).toBe(
      'console=ttyS0 root=/dev/nfs nfsroot=10.0.2.2:/exports/vm-root,nfsvers=3,tcp,nolock,port=2049,rsize=1048576,wsize=1048576,nconnect=2 ip=10.0.2.77::10.0.2.2:255.255.255.0:my-vm:eth0:off:10.0.2.3 rw gateway_ip="10.0.2.2/24" guest_ip="10.0.2.77/24" vm_name="my-vm" entry_point="/usr/bin/agent" panic=-1 init=/sbin/tini mitigations=off',
    );
  });

  it("of a disk root without an initramfs of the person's own", () => {
    expect(line(diskSpec())).toBe(
      'console=ttyS0 root=/dev/vda ro gateway_ip="10.0.2.2/24" guest_ip="10.0.2.15/24" vm_name="my-vm" panic=-1',
    );
  });
});

describe("where we leave the seed", () => {
  it("names the mount port, unless rpcbind is to be asked", () => {
    expect(line(nfsSpec({ nfsMountPort: 20048 }))).toContain(",port=11111,mountport=20048,");
    expect(line(nfsSpec({ nfsMountPort: "rpcbind" }))).not.toContain("mountport");
  });

  it("gives the guest an address, unless DHCP is asked for", () => {
    expect(line(nfsSpec())).toContain(" ip=10.0.2.15::10.0.2.2:255.255.255.0:my-vm:eth0:off:10.0.2.3 ");
    expect(line(nfsSpec({ ip: "dhcp" }))).toContain(" ip=dhcp ");
  });

  it("takes 255.255.255.0 for the netmask of a link that names no prefix length", () => {
    const spec = nfsSpec();
    expect(
      commandLine({ spec, link: seedLink, nfsServerAddress: "10.20.1.1", ownInitramfs: false }),
    ).toContain(" ip=10.20.1.2::10.20.1.1:255.255.255.0:my-vm:eth0:off rw ");
  });

  it("names at most the two name servers that ip= takes", () => {
    const link = { ...seedLink, nameServers: ["10.20.1.3", "10.20.1.4", "10.20.1.5"] };
    expect(
      commandLine({ spec: nfsSpec(), link, nfsServerAddress: "10.20.1.1", ownInitramfs: false }),
    ).toContain(":eth0:off:10.20.1.3:10.20.1.4 rw ");
  });

  it("writes addresses with the prefix length where the link has one", () => {
    expect(line(diskSpec())).toContain('gateway_ip="10.0.2.2/24" guest_ip="10.0.2.15/24"');
    expect(commandLine({ spec: diskSpec(), link: seedLink, ownInitramfs: true })).toContain(
      'gateway_ip="10.20.1.1" guest_ip="10.20.1.2"',
    );
  });

  it("names the root of a disk boot, unless the person's initramfs knows it", () => {
    expect(line(diskSpec())).toContain(" root=/dev/vda ro ");
    expect(line(diskSpec(), true)).not.toContain("root=");
  });

  it("puts what the person adds at the end", () => {
    expect(line(nfsSpec({ kernelArgs: ["panic=-1", "a=1", "b"] }))).toMatch(/ panic=-1 a=1 b$/);
  });
});

describe("the transfer sizes of NFS", () => {
  it.each([
    [undefined, "rsize=1048576,wsize=1048576"],
    ["", ""],
    ["hard", "rsize=1048576,wsize=1048576,hard"],
    ["rsize=4096", "wsize=1048576,rsize=4096"],
    ["wsize=4096,hard", "rsize=1048576,wsize=4096,hard"],
    ["rsize=1,wsize=2", "rsize=1,wsize=2"],
  ])("are added to %j where it does not name them", (given, options) => {
    expect(withTransferSizes(given)).toBe(options);
  });
});

describe("the limits of the kernel", () => {
  const options = "nfsvers=3,tcp,nolock,port=11111,mountport=11111,";
  const nfsOptions = (bytes: number) => `a=${"x".repeat(bytes - options.length - 2)}`;

  it(`takes NFS options of ${NFS_OPTIONS_LIMIT_BYTES} bytes with ours, and no more`, () => {
    expect(NFS_OPTIONS_LIMIT_BYTES).toBe(194);
    expect(line(nfsSpec({ nfsOptions: nfsOptions(194) }))).toContain(`nfsroot=10.0.2.2:/,${options}a=x`);
    expect(refusal(nfsSpec({ nfsOptions: nfsOptions(195) }))).toMatch(
      /^nfsOptions: expected at most 194 bytes of NFS options together with ours, got 195: "nfsvers=3,/,
    );
  });

  it(`takes a value of nfsroot= of ${NFSROOT_LIMIT_BYTES} bytes, and no more`, () => {
    expect(NFSROOT_LIMIT_BYTES).toBe(1024);
    const rest = `10.0.2.2:,${options}rsize=1048576,wsize=1048576`.length;
    const nfsPath = (bytes: number) => `/${"p".repeat(bytes - rest - 1)}`;
    const word = /nfsroot=(\S+)/.exec(line(nfsSpec({ nfsPath: nfsPath(1024) })))?.[1];
    expect(word).toHaveLength(1024);
    expect(refusal(nfsSpec({ nfsPath: nfsPath(1025) }))).toBe(
      "nfsPath: expected server, path and options of nfsroot= within 1024 bytes (the kernel cuts them there), got 1025",
    );
  });

  it(`takes a line of ${LINE_LIMIT_BYTES} bytes, and no more`, () => {
    expect(LINE_LIMIT_BYTES).toBe(2047);
    const rest = line(nfsSpec({ kernelArgs: [] })).length;
    const kernelArgs = (bytes: number) => [`a=${"x".repeat(bytes - rest - 3)}`];
    expect(line(nfsSpec({ kernelArgs: kernelArgs(2047) }))).toHaveLength(2047);
    expect(refusal(nfsSpec({ kernelArgs: kernelArgs(2048) }))).toBe(
      "kernelArgs: expected a kernel command line of at most 2047 bytes, got 2048: shorten kernelArgs, nfsPath or nfsOptions",
    );
  });

  it(`takes ${UNKNOWN_WORDS_LIMIT} words that the kernel does not know, and no more`, () => {
    expect(UNKNOWN_WORDS_LIMIT).toBe(30);
    // Ours on a disk root: gateway_ip, guest_ip, vm_name.
    expect(line(diskSpec({ kernelArgs: words(27) }))).toMatch(/ w26=1$/);
    expect(refusal(diskSpec({ kernelArgs: words(28) }))).toBe(
      "kernelArgs: expected at most 30 words that the kernel does not know (it panics above), got 31 with ours",
    );
    expect(refusal(diskSpec({ kernelArgs: words(27), entryPoint: "/agent" }))).toMatch(/got 31 with ours$/);
  });

  it("counts nfsroot= and ip= among them: a stock kernel, booted with our initramfs, does not know them", () => {
    expect(line(nfsSpec({ kernelArgs: words(25) }))).toMatch(/ w24=1$/);
    expect(refusal(nfsSpec({ kernelArgs: words(26) }))).toMatch(/got 31 with ours$/);
  });

  it("does not count the kernel's own words and those of its modules", () => {
    const own = ["panic=-1", "ro", "rootwait", "nokaslr", "init=/bin/sh", "mitigations=off"];
    const modules = Array.from({ length: 40 }, (_, index) => `nfs.option${index}=1`);
    expect(line(diskSpec({ kernelArgs: [...own, ...modules] }))).toContain(" nfs.option39=1");
  });
});
