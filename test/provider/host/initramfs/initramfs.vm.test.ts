import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureInitramfs } from "../../../../provider/host/initramfs/initramfs.js";
import { type BootNeed, bootNeeds } from "../../../../provider/preflight/kernel/boot-needs.js";
import { inspectKernel } from "../../../../provider/preflight/kernel/inspect.js";
import { makeDiskImage, makeGuestRoot } from "../../../lab/guest.js";
import { bootGuest, type GuestBoot, type GuestRun } from "../../../lab/kernel/boot-guest.js";
import { type NfsServer, startNfsServer, whyNoNfsServer } from "../../../lab/nfs.js";
import { isOnPath } from "../../../lab/programs.js";
import { mustRun } from "../../../lab/run-process.js";

const stock = process.env["MICROVM_LAB_KERNEL"];
const nfsRoot = process.env["MICROVM_LAB_NFS_KERNEL"];
const noNfs = whyNoNfsServer();
const noQemu = isOnPath("qemu-system-x86_64") ? undefined : "qemu-system-x86_64 is not installed";
const noStock = noQemu ?? (stock === undefined ? "MICROVM_LAB_KERNEL is not set" : undefined);
const noNfsRoot = noQemu ?? (nfsRoot === undefined ? "MICROVM_LAB_NFS_KERNEL is not set" : undefined);

/** A title that says why the test is skipped. */
const titled = (title: string, reason: string | undefined): string =>
  reason === undefined ? title : `${title} (skipped: ${reason})`;

const STATIC_IP = "10.0.2.15::10.0.2.2:255.255.255.0:lab-guest:eth0:off:10.0.2.3";
const MACHINES = ["q35", "microvm"] as const;
const READY = /^guest: .*\n/m;

let folder: string;
let server: NfsServer | undefined;
let root: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "kernel-vm-"));
  root = join(folder, "root");
  await makeGuestRoot(root);
  if (noNfs === undefined && noQemu === undefined)
    server = await startNfsServer({ exports: [{ path: root }] });
}, 60_000);

afterAll(async () => {
  await server?.stop();
  await rm(folder, { recursive: true, force: true });
}, 30_000);

function nfsCmdline(
  options: { ip?: string; path?: string; mountPort?: number; extra?: string } = {},
): string {
  const mountPort = options.mountPort ?? server?.mountPort;
  const nfs = `nfsvers=3,tcp,nolock,port=${server?.nfsPort},mountport=${mountPort},rsize=1048576,wsize=1048576`;
  return (
    `console=ttyS0 root=/dev/nfs nfsroot=10.0.2.2:${options.path ?? root},${nfs} ip=${options.ip ?? STATIC_IP} rw ` +
    `gateway_ip="10.0.2.2" guest_ip="10.0.2.15" vm_name="lab-guest" panic=-1${options.extra ?? ""}`
  );
}

async function bootWithInitramfs(
  kernel: string,
  need: Partial<BootNeed> & Pick<BootNeed, "root"> & { machine: "q35" | "microvm" },
  boot: Pick<GuestBoot, "cmdline" | "disks"> & { until?: RegExp },
): Promise<GuestRun> {
  const facts = await inspectKernel(kernel);
  const verdict = bootNeeds(facts, {
    dhcp: false,
    disks: false,
    overlay: false,
    ownInitramfs: false,
    ...need,
  });
  if (verdict.kind !== "initramfs") throw new Error(JSON.stringify(verdict));
  const { modules, optionalModules } = verdict;
  const cacheDirectory = join(folder, "cache");
  const initramfs = await ensureInitramfs({ facts, modules, optionalModules, cacheDirectory });
  return bootGuest({ until: READY, ...boot, kernel, initramfs: initramfs.path, machine: need.machine });
}

describe("a stock kernel with our initramfs, NFS root", { timeout: 120_000 }, () => {
  const skipped = noStock ?? noNfs;

  it.skipIf(skipped).each(MACHINES)(
    titled("mounts it with a static address on %s", skipped),
    async (machine) => {
      const run = await bootWithInitramfs(stock ?? "", { root: "nfs", machine }, { cmdline: nfsCmdline() });
      expect(run.end, run.console).toBe("matched");
      expect(run.console).toContain(`\nmicrovm-initramfs: mounted root (nfs) 10.0.2.2:${root}\n`);
      expect(run.console).toContain("\nmicrovm-initramfs: starting /sbin/init\n");
    },
  );

  it.skipIf(skipped)(titled("mounts it with an address from DHCP", skipped), async () => {
    const cmdline = nfsCmdline({ ip: "dhcp" });
    const run = await bootWithInitramfs(
      stock ?? "",
      { root: "nfs", machine: "q35", dhcp: true },
      { cmdline },
    );
    expect(run.end, run.console).toBe("matched");
    expect(run.console).toContain(`\nmicrovm-initramfs: mounted root (nfs) 10.0.2.2:${root}\n`);
  });

  it.skipIf(skipped)(
    titled("hands init what the kernel would: arguments, environment, /dev, name servers", skipped),
    async () => {
      const probe = join(root, "sbin/probe");
      const script = [
        'echo "args: $*"',
        'env | sort | sed "s/^/env: /"',
        "hostname",
        "cat /dev/microvm/resolv.conf",
        "mount -t proc proc /proc",
        'cut -d " " -f 2,3 /proc/mounts | sed "s/^/mount: /"',
        'echo "probe: end"',
        "exec sleep 99",
      ];
      await writeFile(probe, ["#!/bin/sh", ...script, ""].join("\n"), { mode: 0o755 });
      const cmdline = nfsCmdline({ extra: ' entry_point="/x y init=/z" init=/sbin/probe word -- one two' });
      const run = await bootWithInitramfs(
        stock ?? "",
        { root: "nfs", machine: "q35" },
        { cmdline, until: /^probe: end\n/m },
      );
      expect(run.end, run.console).toBe("matched");
      // The kernel may have a word in between.
      const said = run.console.replaceAll(/^\[ *\d+\.\d+\].*\n/gm, "");
      expect(said).toContain("\nmicrovm-initramfs: starting /sbin/probe\nargs: word one two\n");
      // PATH, PWD and SHLVL are the probe's own shell's.
      const environment = said.match(/^env: .*$/gm)?.filter((line) => !/^env: (PATH|PWD|SHLVL)=/.test(line));
      expect(environment).toEqual([
        "env: HOME=/",
        "env: TERM=linux",
        "env: entry_point=/x y init=/z",
        "env: gateway_ip=10.0.2.2",
        "env: guest_ip=10.0.2.15",
        "env: vm_name=lab-guest",
      ]);
      expect(said).toContain("\nlab-guest\nnameserver 10.0.2.3\n");
      const mounts = said.match(/^mount: .*$/gm);
      expect(new Set(mounts)).toEqual(new Set(["mount: / nfs", "mount: /dev devtmpfs", "mount: /proc proc"]));
    },
  );

  it.skipIf(skipped)(titled("says which init is missing, and the VM ends", skipped), async () => {
    const cmdline = nfsCmdline({ extra: " init=/sbin/nothing" });
    const run = await bootWithInitramfs(stock ?? "", { root: "nfs", machine: "q35" }, { cmdline });
    expect(run.end, run.console).toBe("exited");
    expect(run.console).toContain(
      `\nmicrovm-initramfs: error: init=/sbin/nothing is not an executable file in 10.0.2.2:${root}\n`,
    );
  });

  it.skipIf(skipped)(titled("says why an export cannot be mounted, and the VM ends", skipped), async () => {
    const run = await bootWithInitramfs(
      stock ?? "",
      { root: "nfs", machine: "q35" },
      { cmdline: nfsCmdline({ path: "/not/exported" }) },
    );
    expect(run.end, run.console).toBe("exited");
    expect(run.console).toMatch(
      /^microvm-initramfs: error: mounting 10.0.2.2:\/not\/exported with rw,vers=3,.*: .*failed: .+$/m,
    );
  });

  it.skipIf(skipped)(
    titled("says so when nobody listens on the mount port, and the VM ends", skipped),
    async () => {
      const run = await bootWithInitramfs(
        stock ?? "",
        { root: "nfs", machine: "q35" },
        { cmdline: nfsCmdline({ mountPort: 9 }) },
      );
      expect(run.end, run.console).toBe("exited");
      expect(run.console).toMatch(/^microvm-initramfs: error: mounting 10.0.2.2:.*Connection refused$/m);
    },
  );
});

describe("a kernel with NFS root built in", { timeout: 120_000 }, () => {
  const skipped = noNfsRoot ?? noNfs;

  it.skipIf(skipped).each(MACHINES)(titled("boots without an initramfs on %s", skipped), async (machine) => {
    const kernel = nfsRoot ?? "";
    const need = {
      root: "nfs",
      machine,
      dhcp: true,
      disks: true,
      overlay: false,
      ownInitramfs: false,
    } as const;
    expect(bootNeeds(await inspectKernel(kernel), need)).toEqual({ kind: "boots", remarks: [] });
    const run = await bootGuest({ kernel, cmdline: nfsCmdline({ ip: "dhcp" }), machine, until: READY });
    expect(run.end, run.console).toBe("matched");
    expect(run.console).toContain("VFS: Mounted root (nfs filesystem)");
  });
});

describe("a disk root", { timeout: 120_000 }, () => {
  const kernels = [
    { title: "a stock kernel", kernel: stock ?? "", skipped: noStock },
    { title: "a kernel with all built in", kernel: nfsRoot ?? "", skipped: noNfsRoot },
  ];
  let image: string;
  let stateful: string;

  beforeAll(async () => {
    image = join(folder, "disk.img");
    stateful = join(folder, "stateful.img");
    await makeDiskImage(root, image);
    await writeFile(stateful, "");
    await truncate(stateful, 32 * 1024 * 1024);
    await mustRun("mkfs.ext4", ["-q", "-F", stateful]);
  });

  for (const { title, kernel, skipped } of kernels) {
    it.skipIf(skipped).each(MACHINES)(
      titled(`with ${title} and a stateful disk is writable on %s`, skipped),
      async (machine) => {
        const run = await bootWithInitramfs(
          kernel,
          { root: "disk", machine, disks: true, overlay: true },
          {
            cmdline: "console=ttyS0 root=/dev/vda ro panic=-1",
            disks: [{ path: image, readonly: true }, { path: stateful }],
          },
        );
        expect(run.end, run.console).toBe("matched");
        expect(run.console).toContain("\nmicrovm-initramfs: laid /dev/vdb over /dev/vda\n");
        expect(run.console).toContain("\nmicrovm-initramfs: mounted root (ext4) /dev/vda\n");
        expect(run.console).toContain("\nmicrovm-initramfs: starting /sbin/init\n");
      },
    );
  }

  it.skipIf(noStock)(
    titled("with a stock kernel and no stateful disk is mounted as it is", noStock),
    async () => {
      const run = await bootWithInitramfs(
        stock ?? "",
        { root: "disk", machine: "q35", disks: true },
        { cmdline: "console=ttyS0 root=/dev/vda ro panic=-1", disks: [{ path: image, readonly: true }] },
      );
      expect(run.end, run.console).toBe("matched");
      expect(run.console).toContain("\nmicrovm-initramfs: mounted root (ext4) /dev/vda\n");
    },
  );

  it.skipIf(noNfsRoot)(
    titled("with all built in and no stateful disk needs no initramfs", noNfsRoot),
    async () => {
      const kernel = nfsRoot ?? "";
      const run = await bootGuest({
        kernel,
        cmdline: "console=ttyS0 root=/dev/vda ro panic=-1",
        machine: "q35",
        disks: [{ path: image, readonly: true }],
        until: READY,
      });
      expect(run.end, run.console).toBe("matched");
      expect(run.console).toContain("VFS: Mounted root (ext4 filesystem)");
    },
  );
});
