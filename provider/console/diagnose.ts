/**
 * Console text -> cause and remedy. Every pattern is matched from the start of what the kernel (or user space) said, so
 * that the echo of the command line is never taken for one.
 */

import type { ConsoleLine } from "./lines.js";

/** What a console line tells about a boot. */
export interface Diagnosis {
  /** Whether the boot cannot succeed any more; otherwise it is only a hint, used if it then fails. */
  readonly ends: boolean;
  /** Whether an earlier hint knows the cause better. */
  readonly generic: boolean;
  /** Present and true when the guest could not reach its NFS server. */
  readonly unreachable?: true;
  /** Why, as a clause without a full stop: `the root has no init program`. */
  readonly cause: string;
  /** What the person can do, as a sentence. */
  readonly remedy: string;
  /** The words on the console. */
  readonly words: string;
}

/** One row of the table. */
interface Symptom {
  readonly by: "kernel" | "user";
  readonly pattern: RegExp;
  readonly ends?: true;
  readonly generic?: true;
  readonly unreachable?: true;
  readonly cause: string | ((match: RegExpExecArray) => string);
  readonly remedy: string;
}

const NO_INIT =
  "Put a program at /sbin/init (or /etc/init, /bin/init, /bin/sh) in the root, or name one with init= in kernelArgs.";
const WRONG_PROCESSOR =
  "Build the root's programs for the processor of this guest (see `file` on the init program), or give a script a #! line.";
const SERVER_DOWN =
  "See that the NFS server runs and listens on nfsPort (and nfsMountPort) where the guest reaches it, and that no firewall is between.";
const EXPORT_WRONG =
  "See that the server exports nfsPath, for NFSv3 over TCP, to the address that the guest's requests come from.";
const MORE_MEMORY = "Raise memoryMiB.";

// The kernel's texts: init/main.c, init/do_mounts.c, fs/nfs/nfsroot.c, fs/nfs/mount_clnt.c, net/ipv4/ipconfig.c, net/sunrpc/clnt.c,
// kernel/panic.c, kernel/exit.c, mm/oom_kill.c. The first row that matches counts.
const table: readonly Symptom[] = [
  // Panics that name their cause.
  {
    by: "kernel",
    pattern: /^Kernel panic - not syncing: Requested init (\S+) failed \(error (-\d+)\)/,
    ends: true,
    cause: (match) => `the init program ${match[1]} cannot be run (${errorName(match[2])})`,
    remedy:
      "See that the program named by init= exists in the root, is executable, and is built for this processor.",
  },
  {
    by: "kernel",
    pattern: /^Kernel panic - not syncing: No (?:working )?init found/,
    ends: true,
    generic: true,
    cause: "the root has no init program that the kernel can run",
    remedy: NO_INIT,
  },
  {
    by: "kernel",
    pattern: /^Kernel panic - not syncing: VFS: Unable to mount root fs/,
    ends: true,
    generic: true,
    cause: "the kernel could not mount its root file system",
    remedy:
      "See that the NFS server runs, exports nfsPath and that the kernel has NFS root support (ROOT_NFS, IP_PNP); for a disk root, that the kernel has its file system and virtio_blk.",
  },
  {
    by: "kernel",
    pattern: /^Kernel panic - not syncing: Too many boot (?:env|init) vars at [`'"]?([^`'"]+)/,
    ends: true,
    cause: (match) =>
      `the command line has more words that the kernel does not know than it takes (at ${match[1]})`,
    remedy: "Leave words out of kernelArgs; at most 30 unknown ones are taken.",
  },
  {
    by: "kernel",
    pattern: /^Kernel panic - not syncing: (?:Out of memory|System is deadlocked on memory)/,
    ends: true,
    cause: "the guest ran out of memory",
    remedy: MORE_MEMORY,
  },
  {
    by: "kernel",
    pattern: /^Kernel panic - not syncing: Attempted to kill init! exitcode=(0x[0-9a-f]+)/,
    ends: true,
    generic: true,
    cause: (match) => `the init program ended (${exitName(match[1])})`,
    remedy: "An init program must not end; the console's last lines show what it said.",
  },
  {
    by: "kernel",
    pattern: /^Kernel panic - not syncing: (.*)/,
    ends: true,
    generic: true,
    cause: (match) => `the kernel panicked: ${match[1]}`,
    remedy: "The console's last lines show what led to it.",
  },
  // Failed execs: the kernel goes on to its next candidate, which is not the guest that was asked for.
  {
    by: "kernel",
    pattern: /^Starting init: (\S+) exists but couldn't execute it \(error (-\d+)\)/,
    ends: true,
    cause: (match) => `the init program ${match[1]} cannot be run (${errorName(match[2])})`,
    remedy: WRONG_PROCESSOR,
  },
  {
    by: "kernel",
    pattern: /^Failed to execute (\S+) \(error (-\d+)\)/,
    ends: true,
    cause: (match) => `${match[1]} of the initramfs cannot be run (${errorName(match[2])})`,
    remedy: "Use an initramfs that is built for this processor, or leave `initramfs` out.",
  },
  {
    by: "kernel",
    pattern: /^(?:Run|request_module: runaway loop modprobe) binfmt-/,
    cause: "the root's programs are built for another processor",
    remedy: WRONG_PROCESSOR,
  },
  // Our own initramfs, and the busybox in it.
  {
    by: "user",
    pattern: /^microvm-initramfs: error: (.*(?:Connection refused|ECONNREFUSED).*)/i,
    ends: true,
    unreachable: true,
    cause: (match) => `the NFS server refused the connection: ${match[1]}`,
    remedy: SERVER_DOWN,
  },
  {
    by: "user",
    pattern:
      /^microvm-initramfs: error: (.*(?:timed out|No route to host|unreachable|not responding|Host is down).*)/i,
    ends: true,
    unreachable: true,
    cause: (match) => `the NFS server did not answer: ${match[1]}`,
    remedy: SERVER_DOWN,
  },
  {
    by: "user",
    pattern:
      /^microvm-initramfs: error: (.*(?:Permission denied|access denied|Operation not permitted).*mount.*|.*mount.*(?:Permission denied|access denied|Operation not permitted).*)/i,
    ends: true,
    cause: (match) => `the NFS server denied the mount: ${match[1]}`,
    remedy: EXPORT_WRONG,
  },
  {
    by: "user",
    pattern: /^microvm-initramfs: error: (.*\binit\b.*)/i,
    ends: true,
    cause: (match) => match[1] ?? "",
    remedy: NO_INIT,
  },
  {
    by: "user",
    pattern: /^microvm-initramfs: error: (.*)/,
    ends: true,
    cause: (match) => `the initramfs gave up: ${match[1]}`,
    remedy: "The console's last lines show what led to it.",
  },
  {
    by: "user",
    pattern: /^switch_root: (.*Exec format error.*)/,
    ends: true,
    cause: (match) => `the init program is built for another processor, or is no program: ${match[1]}`,
    remedy: WRONG_PROCESSOR,
  },
  {
    by: "user",
    pattern: /^switch_root: (.*)/,
    ends: true,
    cause: (match) => `the initramfs could not hand over to the root: ${match[1]}`,
    remedy: NO_INIT,
  },
  {
    by: "user",
    pattern: /^mount: mounting \S+ on \S+ failed: (.*)/,
    cause: (match) => `a mount in the guest failed: ${match[1]}`,
    remedy: EXPORT_WRONG,
  },
  {
    by: "user",
    pattern: /^mount\.nfs\S*: (.*)/,
    cause: (match) => `a mount in the guest failed: ${match[1]}`,
    remedy: EXPORT_WRONG,
  },
  // Init programs that start and cannot go on.
  {
    by: "user",
    pattern: /^\S+: error while loading shared libraries: (.*)/,
    cause: (match) => `a library of the init program is missing: ${match[1]}`,
    remedy: "Put the library into the root, or use a statically linked program.",
  },
  {
    by: "user",
    pattern: /^FATAL: kernel too old/,
    cause: "the root's C library needs a newer kernel",
    remedy: "Give a newer `kernel`.",
  },
  {
    by: "user",
    pattern: /^(?:\[!!!!!!\] .*|systemd\[1\]: Freezing execution.*)/,
    ends: true,
    cause: "systemd stopped the boot",
    remedy: "The console's last lines show what systemd misses.",
  },
  // The root over NFS.
  {
    by: "kernel",
    pattern: /^(?:Root-NFS: )?.*mount options string too long/,
    ends: true,
    cause: "the NFS options are longer than the kernel takes",
    remedy: "Shorten nfsOptions; the kernel's buffer is 256 bytes, path included.",
  },
  {
    by: "kernel",
    pattern: /^Root-NFS: (.*)/,
    cause: (match) => `the kernel could not use the NFS root: ${match[1]}`,
    remedy: EXPORT_WRONG,
  },
  {
    by: "kernel",
    pattern: /^VFS: Unable to mount root fs via NFS/,
    cause: "the kernel could not mount the root over NFS",
    remedy: `${SERVER_DOWN} ${EXPORT_WRONG}`,
  },
  {
    by: "kernel",
    pattern: /^NFS: mount program (?:didn't|did not) (.*)/,
    cause: (match) => `the server's mount service did not ${match[1]}`,
    remedy: EXPORT_WRONG,
  },
  {
    by: "kernel",
    pattern: /^(?:nfs|rpcbind): server (\S+) not responding/,
    cause: (match) => `the NFS server ${match[1]} does not answer`,
    remedy: SERVER_DOWN,
  },
  {
    by: "kernel",
    pattern: /^RPC: .*(?:Connection refused|connection refused|error -?111)/,
    cause: "the NFS server refused the connection",
    remedy: SERVER_DOWN,
  },
  {
    by: "kernel",
    pattern: /^NFS: (?:nfs_|server |Server )?.*(?:version|not supported).*/,
    cause: "the server does not speak the NFS version that was asked for",
    remedy: "See that the server offers NFSv3 over TCP.",
  },
  // The network.
  {
    by: "kernel",
    pattern: /^IP-Config: (No network devices available|Failed to open \S+|Device .* not found)/,
    cause: (match) => `the kernel has no network interface (${match[1]})`,
    remedy:
      "The kernel needs virtio_net and virtio_pci (or virtio_mmio) built in, or an initramfs with them.",
  },
  {
    by: "kernel",
    pattern: /^(?:IP-Config: Auto-configuration of network failed|Sending (?:DHCP|BOOTP).*timed out)/,
    cause: "nobody answered the guest's DHCP requests",
    remedy: 'Set `ip` to "static" (an address), or run a DHCP server on the guest\'s link.',
  },
  // Disks, initramfs, memory, console.
  {
    by: "kernel",
    pattern: /^VFS: Cannot open root device "?nfs"? or/,
    cause: "the kernel has no NFS root support built in",
    remedy:
      "Use a kernel with ROOT_NFS and IP_PNP, or leave `initramfs` out so that one is made from the kernel's modules.",
  },
  {
    by: "kernel",
    pattern: /^VFS: Cannot open root device "?([^" ]+)"? or \S+: error (-\d+)/,
    cause: (match) => `the root device ${match[1]} cannot be opened (${errorName(match[2])})`,
    remedy: "The kernel needs virtio_blk and the disk's file system built in, or an initramfs with them.",
  },
  {
    by: "kernel",
    pattern: /^Initramfs unpacking failed: (.*)/,
    cause: (match) => `the initramfs cannot be unpacked (${match[1]})`,
    remedy:
      "Give an initramfs in cpio form, compressed in a way that the kernel knows, and enough memoryMiB to hold it.",
  },
  {
    by: "kernel",
    pattern:
      /^(?:Out of memory|oom-kill|Memory cgroup out of memory|Kernel memory|.*page allocation failure)/,
    cause: "the guest ran out of memory",
    remedy: MORE_MEMORY,
  },
  {
    by: "kernel",
    pattern: /^tsc: Marking TSC unstable due to could not calculate TSC khz/,
    cause:
      "the guest could not measure the rate of its clock, without which it hangs on the machine type microvm",
    remedy:
      'An emulated microvm needs an idle host for that: add "tsc_early_khz=2000000" to kernelArgs, or use the machine type q35.',
  },
  {
    by: "kernel",
    pattern: /^Warning: unable to open an initial console/,
    cause: "the root has no /dev/console, so that the init program cannot be heard",
    remedy: "Make the folder /dev in the root (the kernel mounts devtmpfs there), or /dev/console.",
  },
  {
    by: "kernel",
    pattern: /^(?:EXT4-fs|XFS|BTRFS|SQUASHFS|I\/O) (?:error|.*\berror\b)[^:]*: ?(.*)/,
    cause: (match) => `the disk's file system cannot be read: ${match[1]}`,
    remedy: "See that rootfs is an intact file system image.",
  },
  {
    by: "kernel",
    pattern: /^(?:BUG: |Oops: |general protection fault|kernel BUG at)/,
    cause: "the guest's kernel met a fault of its own",
    remedy: "Try another `kernel`.",
  },
];

/** What a line tells, by the first row of the table that matches; undefined when it tells nothing. */
export function diagnose(line: ConsoleLine): Diagnosis | undefined {
  for (const symptom of table) {
    const text = symptom.by === "kernel" ? line.kernel : line.user;
    if (text === undefined) continue;
    const match = symptom.pattern.exec(text);
    if (match === null) continue;
    return {
      ends: symptom.ends ?? false,
      generic: symptom.generic ?? false,
      ...(symptom.unreachable === true ? { unreachable: true } : {}),
      cause: typeof symptom.cause === "string" ? symptom.cause : symptom.cause(match),
      remedy: symptom.remedy,
      words: text.trim(),
    };
  }
  return undefined;
}

/** The error numbers that a failed exec or open gives (errno(3)), in words. */
const errorNames: Readonly<Record<string, string>> = {
  "-2": "it does not exist, or its interpreter does not",
  "-5": "input/output error",
  "-6": "no such device",
  "-8": "exec format error: it is built for another processor or is no program",
  "-12": "not enough memory",
  "-13": "permission denied: it is not executable",
  "-19": "no such device",
  "-20": "a part of its path is not a folder",
  "-22": "invalid: no file system that the kernel knows",
  "-26": "its file is busy",
  "-40": "too many links",
  "-70": "stale NFS file handle",
  "-116": "stale NFS file handle",
};

function errorName(number: string | undefined): string {
  const name = errorNames[number ?? ""];
  return name === undefined ? `error ${number}` : `error ${number}: ${name}`;
}

/** The wait status of wait(2), in words. */
function exitName(code: string | undefined): string {
  const status = Number(code);
  const signal = status & 0x7f;
  return signal === 0 ? `exit status ${status >> 8}` : `signal ${signal}`;
}
