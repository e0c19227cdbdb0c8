import { describe, expect, it } from "vitest";

import { diagnose } from "../../../provider/console/diagnose.js";
import { splitLine } from "../../../provider/console/lines.js";

/** What the table makes of a console line, as it stands in a log. */
const of = (line: string) => diagnose(splitLine(line));

describe("what ends a boot at once", () => {
  it.each([
    [
      "[    1.35] Kernel panic - not syncing: Requested init /nonexist failed (error -2).",
      "the init program /nonexist cannot be run (error -2: it does not exist, or its interpreter does not)",
    ],
    [
      "[    1.17] Kernel panic - not syncing: No working init found.  Try passing init= option to kernel.",
      "the root has no init program that the kernel can run",
    ],
    [
      "[    2.53] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,255)",
      "the kernel could not mount its root file system",
    ],
    [
      "[    0.10] Kernel panic - not syncing: Too many boot env vars at `x31=y'",
      "the command line has more words that the kernel does not know than it takes (at x31=y)",
    ],
    ["[    9.10] Kernel panic - not syncing: System is deadlocked on memory", "the guest ran out of memory"],
    [
      "[    1.86] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00",
      "the init program ended (exit status 127)",
    ],
    [
      "[    1.86] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
      "the init program ended (signal 11)",
    ],
    ["[    3.00] Kernel panic - not syncing: Fatal exception", "the kernel panicked: Fatal exception"],
    [
      "[    1.74] Starting init: /sbin/init exists but couldn't execute it (error -8)",
      "the init program /sbin/init cannot be run (error -8: exec format error: it is built for another processor or is no program)",
    ],
    [
      "[    1.74] Failed to execute /init (error -13)",
      "/init of the initramfs cannot be run (error -13: permission denied: it is not executable)",
    ],
    [
      "[    1.00] Root-NFS: mount options string too long",
      "the NFS options are longer than the kernel takes",
    ],
    [
      "microvm-initramfs: error: mounting 10.0.2.2:/srv: mount: mounting 10.0.2.2:/srv on /root failed: Connection refused",
      "the NFS server refused the connection: mounting 10.0.2.2:/srv: mount: mounting 10.0.2.2:/srv on /root failed: Connection refused",
    ],
    [
      "microvm-initramfs: error: mounting 10.0.2.2:/srv: Connection timed out",
      "the NFS server did not answer: mounting 10.0.2.2:/srv: Connection timed out",
    ],
    [
      "microvm-initramfs: error: loading the module nfs: invalid module format",
      "the initramfs gave up: loading the module nfs: invalid module format",
    ],
    [
      "switch_root: can't execute '/sbin/init': No such file or directory",
      "the initramfs could not hand over to the root: can't execute '/sbin/init': No such file or directory",
    ],
    ["[!!!!!!] Failed to mount API filesystems.", "systemd stopped the boot"],
  ])("%s", (line, cause) => {
    expect(of(line.replace(/^\[ +(\d\.\d\d)\]/, "[    $10000]"))).toMatchObject({ ends: true, cause });
  });
});

describe("what is only a hint", () => {
  it.each([
    ["VFS: Unable to mount root fs via NFS.", "the kernel could not mount the root over NFS"],
    ["nfs: server 10.0.2.2 not responding, still trying", "the NFS server 10.0.2.2 does not answer"],
    ["rpcbind: server 10.0.2.2 not responding, timed out", "the NFS server 10.0.2.2 does not answer"],
    [
      "IP-Config: No network devices available",
      "the kernel has no network interface (No network devices available)",
    ],
    ["Sending DHCP requests ...... timed out!", "nobody answered the guest's DHCP requests"],
    ["IP-Config: Auto-configuration of network failed", "nobody answered the guest's DHCP requests"],
    [
      'VFS: Cannot open root device "nfs" or unknown-block(0,255): error -6',
      "the kernel has no NFS root support built in",
    ],
    [
      'VFS: Cannot open root device "/dev/vda" or unknown-block(0,0): error -6',
      "the root device /dev/vda cannot be opened (error -6: no such device)",
    ],
    [
      "Initramfs unpacking failed: invalid magic at start of compressed archive",
      "the initramfs cannot be unpacked (invalid magic at start of compressed archive)",
    ],
    [
      "tsc: Marking TSC unstable due to could not calculate TSC khz",
      "the guest could not measure the rate of its clock, without which it hangs on the machine type microvm",
    ],
    ["Out of memory: Killed process 1234 (init)", "the guest ran out of memory"],
    [
      "Warning: unable to open an initial console.",
      "the root has no /dev/console, so that the init program cannot be heard",
    ],
  ])("%s", (words, cause) => {
    expect(of(`[    1.000000] ${words}`)).toMatchObject({ ends: false, cause });
  });
});

describe("what tells nothing", () => {
  it.each([
    "[    0.702013] VFS: Mounted root (nfs filesystem) on device 0:11.",
    "[    0.695000] IP-Config: Complete:",
    "[    0.600000] Sending DHCP requests ., OK",
    "[    1.144193] Run /sbin/init as init process",
    "[    1.870000] ---[ end Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100 ]---",
    "guest: Kernel panic - not syncing: is what I print",
    "[    0.000000] Command line: x=Kernel panic - not syncing: y",
  ])("%s", (line) => {
    expect(of(line)).toBeUndefined();
  });
});
