/** What this host can run guests with: the accelerator and the hypervisor's binary. */

import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access, open, stat } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";
import { promisify } from "node:util";

import type { QemuBackend } from "../backends/backend.js";
import { MicroVmError, messageOf, shown, systemCodeOf } from "../errors.js";
import { isThere } from "../host/storage.js";

const run = promisify(execFile);

/** The QEMU that would run a guest. */
export interface QemuProgram {
  /** Absolute path. */
  readonly path: string;
  /** `7.2.22`. */
  readonly version: string;
  /** Machine types that it offers. */
  readonly machines: ReadonlySet<string>;
  /** Whether `-sandbox on` works: built with seccomp. */
  readonly sandbox: boolean;
}

/** What this host would run a `qemu` guest with. */
export interface QemuHost {
  readonly program: QemuProgram;
  readonly accelerator: "kvm" | "tcg";
}

/** Whether KVM can run a guest here; if not, why, as a clause: `there is no /dev/kvm`. */
export type KvmFinding = { readonly usable: true } | { readonly usable: false; readonly why: string };

/** Where to look; the defaults are this host, tests name others. */
export interface HostPaths {
  readonly kvmDevice?: string;
  readonly sysModule?: string;
}

const BINARY = "qemu-system-x86_64";
const PROBE_MILLISECONDS = 10_000;

/**
 * The QEMU and the accelerator for a back end's options.
 *
 * @throws MicroVmError `host-unusable` on another processor, without QEMU, for a machine type that it does not offer, or for
 * `accelerator: "kvm"` where KVM cannot run a guest.
 */
export async function qemuHost(
  backend: QemuBackend,
  env: NodeJS.ProcessEnv = process.env,
): Promise<QemuHost> {
  const [program, accelerator] = await Promise.all([
    usableQemu(backend, env),
    chooseAccelerator(backend.accelerator),
  ]);
  return { program, accelerator };
}

/**
 * The QEMU binary of a back end's options, with the machine type that they name.
 *
 * @throws MicroVmError `host-unusable` on another processor, without QEMU, or for a machine type that it does not offer.
 */
export async function usableQemu(
  backend: QemuBackend,
  env: NodeJS.ProcessEnv = process.env,
): Promise<QemuProgram> {
  if (process.arch !== "x64") {
    throw new MicroVmError(
      "host-unusable",
      `the qemu back end runs guests on x86-64 hosts so far; this one is ${process.arch}`,
    );
  }
  const program = await findQemu(backend.binary, env);
  if (!program.machines.has(backend.machine)) {
    throw new MicroVmError(
      "host-unusable",
      `expected a QEMU with the machine type ${backend.machine}, found ${program.path} ${program.version} without it. Use the other machine type, or another QEMU by backend.binary`,
      { input: "backend.machine" },
    );
  }
  return program;
}

/**
 * KVM for `auto` where it can run a guest, else TCG.
 * @throws MicroVmError `host-unusable` for an explicit `kvm` where it cannot.
 */
export async function chooseAccelerator(
  wanted: QemuBackend["accelerator"],
  paths: HostPaths = {},
): Promise<"kvm" | "tcg"> {
  if (wanted === "tcg") return "tcg";
  const kvm = await findKvm(paths);
  if (kvm.usable) return "kvm";
  if (wanted === "auto") return "tcg";
  throw new MicroVmError(
    "host-unusable",
    `KVM cannot run a guest on this host: ${kvm.why}. Use "auto" or "tcg", or a host with hardware virtualisation`,
    { input: "backend.accelerator" },
  );
}

/**
 * Whether KVM can run a stock guest. /dev/kvm alone does not tell: where the host is itself a guest, it may belong to a
 * module (kvm_pvm) that runs only kernels made for it.
 */
export async function findKvm(paths: HostPaths = {}): Promise<KvmFinding> {
  const device = paths.kvmDevice ?? "/dev/kvm";
  const modules = paths.sysModule ?? "/sys/module";
  try {
    const handle = await open(device, constants.O_RDWR);
    await handle.close();
  } catch (error) {
    const code = systemCodeOf(error);
    if (code === "ENOENT") return { usable: false, why: `there is no ${device}` };
    if (code === "EACCES" || code === "EPERM") {
      return { usable: false, why: `this user may not open ${device} (the group kvm usually may)` };
    }
    return { usable: false, why: `${device} does not open: ${messageOf(error)}` };
  }
  for (const module of ["kvm_intel", "kvm_amd"]) {
    if (await isThere(join(modules, module))) return { usable: true };
  }
  return {
    usable: false,
    why: `neither kvm_intel nor kvm_amd is loaded, so ${device} cannot run stock kernels`,
  };
}

const known = new Map<string, Promise<QemuProgram>>();

/**
 * The QEMU binary: `backend.binary`, else `MICROVM_QEMU`, else `qemu-system-x86_64` on PATH. It is asked for its version and
 * features once per process and file.
 *
 * @throws MicroVmError `host-unusable` when there is none, or it does not run.
 */
export async function findQemu(
  binary: string | undefined,
  env: NodeJS.ProcessEnv = process.env,
): Promise<QemuProgram> {
  const path = await findBinary(binary, env);
  const { mtimeMs, ino } = await stat(path);
  const key = `${path} ${ino} ${mtimeMs}`;
  const found = known.get(key) ?? askQemu(path);
  known.set(key, found);
  return await found;
}

async function findBinary(binary: string | undefined, env: NodeJS.ProcessEnv): Promise<string> {
  const [named, input] =
    binary !== undefined ? [binary, "backend.binary"] : [env["MICROVM_QEMU"], "MICROVM_QEMU"];
  if (named !== undefined && named !== "") {
    const path = await onPath(named, env);
    if (path !== undefined) return path;
    throw new MicroVmError(
      "host-unusable",
      `expected a program that can be run, found ${shown(named)}. Correct the path, or leave it out to use ${BINARY} on PATH`,
      { input },
    );
  }
  const path = await onPath(BINARY, env);
  if (path !== undefined) return path;
  throw new MicroVmError(
    "host-unusable",
    `${BINARY} is not on PATH. Install it (Debian and Ubuntu: apt-get install qemu-system-x86), or name it by backend.binary or MICROVM_QEMU`,
  );
}

async function onPath(name: string, env: NodeJS.ProcessEnv): Promise<string | undefined> {
  if (isAbsolute(name)) return (await isExecutable(name)) ? name : undefined;
  if (name.includes("/")) return undefined; // relative to what, cannot be told
  for (const folder of (env["PATH"] ?? "").split(delimiter)) {
    if (isAbsolute(folder) && (await isExecutable(join(folder, name)))) return join(folder, name);
  }
  return undefined;
}

async function askQemu(path: string): Promise<QemuProgram> {
  const [version, machines, sandbox] = await Promise.all([
    ask(path, ["-version"]),
    ask(path, ["-machine", "help"]),
    worksSandboxed(path),
  ]);
  const number = /version (\d+(?:\.\d+)+)/.exec(version)?.[1];
  if (number === undefined) {
    throw new MicroVmError("host-unusable", `${path} is no QEMU: it answers -version with ${shown(version)}`);
  }
  const names = machines
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const alias = /\(alias of ([^)]+)\)/.exec(line)?.[1];
      return [line.split(/\s/)[0] ?? "", ...(alias === undefined ? [] : [alias])];
    });
  return { path, version: number, machines: new Set(names.filter((name) => name !== "")), sandbox };
}

async function ask(path: string, args: readonly string[]): Promise<string> {
  try {
    return (await run(path, args, { timeout: PROBE_MILLISECONDS })).stdout;
  } catch (error) {
    throw new MicroVmError("host-unusable", `${path} ${args.join(" ")} failed: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

async function worksSandboxed(path: string): Promise<boolean> {
  try {
    await run(path, ["-sandbox", "on,spawn=deny", "-machine", "help"], { timeout: PROBE_MILLISECONDS });
    return true;
  } catch (error) {
    // QEMU without seccomp refuses the option and ends; anything else (a missing program, a time-out) is no answer.
    if (typeof error === "object" && error !== null && "code" in error && typeof error.code === "number") {
      return false;
    }
    throw new MicroVmError("host-unusable", `${path} -sandbox on failed: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false; // whatever keeps it from being run, the next folder of PATH may have one
  }
}
