/**
 * A Linux NFS server, the kernel's own nfsd, for tests: in a small QEMU machine, since nfsd is one per host, and a host's own is not a test's to
 * take over. The machine has the lab's stock kernel and this host's programs of Debian's nfs-kernel-server, and dies with the process that
 * started it. Its ports are the same numbers on 127.0.0.1, port 111 among them: a test must be in a network namespace of its own.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  appendFile,
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readFile,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { findBusybox } from "../../provider/host/initramfs/busybox.js";
import { findModules, readModules } from "../../provider/host/initramfs/modules.js";
import { findProgram } from "../../provider/host/program.js";
import { inspectKernel } from "../../provider/preflight/kernel/inspect.js";
import { makeDiskImage } from "./guest.js";
import { answers } from "./nfs.js";
import { copyProgram } from "./copy-program.js";
import { isOnPath } from "./programs.js";
import { mustRun } from "./run-process.js";

/** Where the machine serves its disk: the path that a client mounts. */
export const EXPORT_PATH = "/srv/root";

/** A machine whose nfsd serves. */
export interface KernelNfsd {
  readonly nfsPort: number;
  readonly mountPort: number;
  /** Runs a shell command in the machine; resolves to what it prints, throws when it fails. One after the other. */
  run(command: string): Promise<string>;
  /** Ends the server, unmounts its disk and goes off; what it served is then read by {@link readServed}. */
  powerOff(): Promise<void>;
  /** A file of what was served, from the disk of a machine that is off. */
  readServed(path: string): Promise<string>;
  /** Ends the machine at once and removes its files. Idempotent. */
  kill(): Promise<void>;
}

const NFS_PORT = 2049;
const MOUNT_PORT = 20_048;
/** The first word of its shell. */
const SERVES = "serves\n";
const READY_SECONDS = 90;
const COMMAND_SECONDS = 30;

const PROGRAMS = { "nfs-kernel-server": ["exportfs", "rpc.mountd", "rpc.nfsd"], rpcbind: ["rpcbind"] };
const MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "ext4", "nfsd"];

/** What the programs read: transports and names of RPC. */
const SETTINGS = ["netconfig", "protocols", "rpc", "services"];

/** Why no such machine can be started here, as the reason of a skipped test; undefined when one can. */
export function whyNoKernelNfsd(): string | undefined {
  if (process.env["MICROVM_LAB_KERNEL"] === undefined) return "MICROVM_LAB_KERNEL is not set";
  const needed = Object.entries(PROGRAMS).flatMap(([name, programs]) =>
    programs.map((program) => [program, name]),
  );
  needed.push(["qemu-system-x86_64", "qemu-system-x86"], ["cpio", "cpio"], ["mkfs.ext4", "e2fsprogs"]);
  const missing = needed.find(([program = ""]) => !isOnPath(program));
  return missing === undefined ? undefined : `${missing[0]} of the package ${missing[1]} is not installed`;
}

/** Starts a machine that serves a copy of a directory's tree; throws with its console when it does not answer within 90 s. */
export async function startKernelNfsd(directory: string): Promise<KernelNfsd> {
  const reason = whyNoKernelNfsd();
  if (reason !== undefined) throw new Error(`no nfsd: ${reason}`);
  const folder = await mkdtemp(join(tmpdir(), "lab-nfsd-"));
  const machine = new Machine(folder);
  try {
    await makeDiskImage(directory, machine.disk);
    await makeInitramfs(join(folder, "tree"), machine.initramfs);
    await machine.boot();
    return machine;
  } catch (error) {
    await machine.kill();
    throw error;
  }
}

class Machine implements KernelNfsd {
  readonly nfsPort = NFS_PORT;
  readonly mountPort = MOUNT_PORT;
  readonly disk: string;
  readonly initramfs: string;
  readonly #console: string;
  #child: ChildProcess | undefined;
  #exited: Promise<unknown> = Promise.resolve();
  /** What has come from the machine's shell and was not asked for yet. */
  #said = "";
  #last: Promise<unknown> = Promise.resolve();

  constructor(readonly folder: string) {
    this.disk = join(folder, "disk.img");
    this.initramfs = join(folder, "initramfs");
    this.#console = join(folder, "console.log");
  }

  async boot(): Promise<void> {
    const child = spawn("setpriv", ["--pdeathsig", "KILL", ...this.#qemu()], {
      stdio: ["pipe", "pipe", "pipe"],
      // Out of the terminal's process group, as the lab's other servers.
      detached: true,
    });
    this.#child = child;
    this.#exited = once(child, "exit");
    child.stdout
      .setEncoding("latin1")
      .on("data", (text: string) => (this.#said += text.replaceAll("\r", "")));
    // That it takes no more commands shows as its end.
    child.stdin.on("error", () => undefined);
    child.stderr.on("data", (text: Buffer) => void appendFile(this.#console, text));
    // Both, since another server may be answering on these ports.
    const isUp = async (): Promise<boolean> => this.#said === SERVES && (await answer());
    await this.#until(isUp, READY_SECONDS, "does not answer");
  }

  run(command: string): Promise<string> {
    const ran = this.#last.then(() => this.#run(command));
    // The next one does not depend on how this one ends.
    this.#last = ran.catch(() => undefined);
    return ran;
  }

  async #run(command: string): Promise<string> {
    this.#said = "";
    this.#child?.stdin?.write(`${command}\n`);
    const end = /(?:^|\n)exit (\d+)\n$/;
    await this.#until(() => end.test(this.#said), COMMAND_SECONDS, `does not finish ${command}`);
    const output = this.#said.replace(end, "");
    if (end.exec(this.#said)?.[1] !== "0") throw new Error(`${command} in the machine of nfsd: ${output}`);
    return output;
  }

  async powerOff(): Promise<void> {
    await this.run("stop");
    this.#child?.stdin?.write("poweroff -f\n");
    await this.#until(() => this.#hasEnded(), COMMAND_SECONDS, "does not go off");
  }

  async readServed(path: string): Promise<string> {
    return mustRun("debugfs", ["-R", `cat ${path}`, this.disk]);
  }

  async kill(): Promise<void> {
    if (!this.#hasEnded()) this.#child?.kill("SIGKILL");
    await this.#exited;
    await rm(this.folder, { recursive: true, force: true });
  }

  #hasEnded(): boolean {
    const child = this.#child;
    return child === undefined || child.exitCode !== null || child.signalCode !== null;
  }

  /** Waits for a condition; throws with the console's last lines when it does not come, or the machine has ended. */
  async #until(isTrue: () => boolean | Promise<boolean>, seconds: number, otherwise: string): Promise<void> {
    const deadline = Date.now() + seconds * 1000;
    while (!(await isTrue())) {
      if (this.#hasEnded() || Date.now() > deadline) {
        const console = await readFile(this.#console, "utf8").catch(() => "");
        throw new Error(`The machine of nfsd ${otherwise}:\n${console.slice(-2000)}${this.#said}`);
      }
      await delay(50);
    }
  }

  #qemu(): string[] {
    const ports = [111, NFS_PORT, MOUNT_PORT].map((port) => `,hostfwd=tcp:127.0.0.1:${port}-:${port}`);
    return [
      [findProgram("qemu-system-x86_64", "install the package qemu-system-x86")],
      ["-accel", "tcg", "-cpu", "max", "-machine", "q35", "-m", "256", "-nodefaults", "-no-user-config"],
      // The second port is the machine's shell.
      ["-display", "none", "-no-reboot", "-serial", `file:${this.#console}`, "-serial", "stdio"],
      ["-kernel", process.env["MICROVM_LAB_KERNEL"] ?? "", "-initrd", this.initramfs],
      ["-append", "console=ttyS0 quiet panic=-1"],
      ["-drive", `if=none,id=served,format=raw,file=${this.disk}`, "-device", "virtio-blk-pci,drive=served"],
      [
        "-netdev",
        `user,id=net,restrict=on${ports.join("")}`,
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
      ],
    ].flat();
  }
}

async function answer(): Promise<boolean> {
  return (await answers("127.0.0.1", NFS_PORT, 100003)) && (await answers("127.0.0.1", MOUNT_PORT, 100005));
}

/** All that the machine runs on: it has no other root. */
async function makeInitramfs(tree: string, archive: string): Promise<void> {
  for (const path of ["bin", "dev", "etc", "modules", "proc", "run", "sys", "tmp", "usr/sbin", "var/lib/nfs"])
    await mkdir(join(tree, path), { recursive: true });
  await mkdir(join(tree, EXPORT_PATH), { recursive: true });
  await symlink("/run", join(tree, "var/run"));

  const { path: busybox } = await findBusybox("x86_64");
  await copyFile(busybox, join(tree, "bin/busybox"));
  await symlink("busybox", join(tree, "bin/sh"));
  for (const [name, programs] of Object.entries(PROGRAMS)) {
    for (const program of programs)
      await copyProgram(tree, findProgram(program, `install the package ${name}`), `/usr/sbin/${program}`);
  }

  const folder = await findModules(await inspectKernel(process.env["MICROVM_LAB_KERNEL"] ?? ""));
  const modules = await readModules(folder, MODULES, []);
  for (const { name, content } of modules) await writeFile(join(tree, "modules", name), content);

  for (const name of SETTINGS) await copyFile(join("/etc", name), join(tree, "etc", name));
  const files = {
    passwd: "root:x:0:0::/:/bin/sh\n_rpc:x:100:65534::/run/rpcbind:/bin/false\n",
    group: "root:x:0:\nnogroup:x:65534:\n",
    hosts: "127.0.0.1 localhost\n",
    // QEMU's user network lets nobody keep a port below 1024 (exports(5), secure).
    exports: `${EXPORT_PATH} 10.0.2.0/24(rw,no_root_squash,no_subtree_check,insecure)\n`,
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(tree, "etc", name), text);
  await writeFile(join(tree, "init"), init(modules.map(({ name }) => name)));
  await chmod(join(tree, "init"), 0o755);
  await mustRun("sh", ["-euc", `find . | cpio --quiet -o -H newc >"$0"`, archive], { cwd: tree });
}

/** In the order of the units of nfs-kernel-server; then a shell at the second serial port. */
function init(modules: readonly string[]): string {
  return `#!/bin/sh
# When the first process ends, the kernel panics, and QEMU ends.
set -e
export PATH=/usr/sbin:/bin
/bin/busybox --install -s /bin
mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/console 2>&1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for module in ${modules.join(" ")}; do insmod /modules/$module; done
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
mount -t ext4 /dev/vda ${EXPORT_PATH}
mount -t nfsd nfsd /proc/fs/nfsd

start() { exportfs -r && rpc.nfsd --no-nfs-version 4 --no-udp 4; }
# Nothing is exported any more, so that the disk can be unmounted.
stop() { rpc.nfsd 0 && exportfs -au && exportfs -f && killall rpc.mountd && umount ${EXPORT_PATH}; }
rpcbind
rpc.mountd --no-nfs-version 4 --no-udp --port ${MOUNT_PORT}
start

set +e
{
  stty raw -echo
  printf '${SERVES.trimEnd()}\\n'
  while read -r line; do
    eval "$line" 2>&1
    printf '\\nexit %s\\n' $?
  done
} </dev/ttyS1 >/dev/ttyS1
`;
}
