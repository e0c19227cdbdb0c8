/**
 * A machine in which KVM runs guests: QEMU emulates a processor with AMD's virtualization (`-cpu max` has SVM), and the
 * distribution's stock kernel with kvm_amd runs on it. Slow, and everything in it is real: its kernel, network and KVM.
 *
 * Its disk is made from this host's own files (root.ts). Nothing of it reaches the network, and it ends with the process that started it.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { ensureInitramfs } from "../../../provider/host/initramfs/initramfs.js";
import { findProgram } from "../../../provider/host/program.js";
import { inspectKernel } from "../../../provider/preflight/kernel/inspect.js";
import { mustRun, runProcess } from "../run-process.js";

/** What the machine is given. */
export interface Machine {
  /** Absolute path of a stock kernel, its modules beside it; its disk's root holds those modules as well. */
  readonly kernel: string;
  /** Folder with the root file system, `/sbin/init` in it. */
  readonly root: string;
  /** An empty folder for the machine's disk and what else it needs; for the caller to remove. */
  readonly folder: string;
  /** SIGKILL after so many seconds. */
  readonly timeoutSeconds: number;
  /** Called with each line of its console. */
  readonly onLine: (line: string) => void;
  /** Folder of this host that gets a copy of the machine's `/out` when it has ended; replaced. */
  readonly out: string;
}

/** How the machine ended. */
export type MachineEnd =
  /** It went off by itself; `exitCode` is what its init handed out. */
  | { readonly kind: "done"; readonly exitCode: number }
  /** It ended without handing out an exit code: a panic, a reset, QEMU's own failure. */
  | { readonly kind: "died" }
  | { readonly kind: "timeout" };

const DISK_MIB = 3072;
const MEMORY_MIB = 3072;

/** Boots the machine and waits for its end. */
export async function runMachine(machine: Machine): Promise<MachineEnd> {
  const { folder } = machine;
  const disk = join(folder, "disk.img");
  await mustRun("mkfs.ext4", ["-q", "-F", "-d", machine.root, disk, `${DISK_MIB}M`]);
  const initramfs = await ensureInitramfs({
    facts: await inspectKernel(machine.kernel),
    modules: ["virtio_pci", "virtio_blk"],
    optionalModules: [],
    cacheDirectory: folder,
  });
  const exitFile = join(folder, "exit");
  const isOver = await runQemu(machine, initramfs.path, disk, exitFile);
  await rm(machine.out, { recursive: true, force: true });
  // A machine that was killed leaves a journal to replay; how that went shows in what debugfs finds.
  await runProcess("e2fsck", ["-p", disk]);
  await mustRun("debugfs", ["-R", `rdump /out "${join(machine.out, "..")}"`, disk]);
  if (!isOver) return { kind: "timeout" };
  const exitCode = /^exit (\d+)/m.exec(await readFile(exitFile, "utf8"))?.[1];
  return exitCode === undefined ? { kind: "died" } : { kind: "done", exitCode: Number(exitCode) };
}

/** Whether QEMU ended before the time was up. */
async function runQemu(
  machine: Machine,
  initramfs: string,
  disk: string,
  exitFile: string,
): Promise<boolean> {
  const child = spawn(
    "setpriv",
    [
      ["--pdeathsig", "KILL", findProgram("qemu-system-x86_64", "install the package qemu-system-x86")],
      // One processor: on two, QEMU 7.2 now and then lost a guest of two vCPUs, and once the machine's own kernel with it.
      ["-accel", "tcg", "-cpu", "max", "-machine", "q35", "-smp", "1", "-m", String(MEMORY_MIB)],
      ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
      // The second port carries the exit code alone.
      ["-serial", "stdio", "-serial", `file:${exitFile}`],
      ["-kernel", machine.kernel, "-initrd", initramfs],
      ["-append", "console=ttyS0 root=/dev/vda rw quiet loglevel=3 panic=-1"],
      [
        "-drive",
        `if=none,id=root,format=raw,cache=unsafe,file=${disk}`,
        "-device",
        "virtio-blk-pci,drive=root",
      ],
    ].flat(),
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  let isOver = true;
  const timer = setTimeout(() => {
    isOver = false;
    child.kill("SIGKILL");
  }, machine.timeoutSeconds * 1000);
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream, crlfDelay: Infinity }).on("line", machine.onLine);
  }
  try {
    await once(child, "close");
  } finally {
    clearTimeout(timer);
  }
  return isOver;
}
