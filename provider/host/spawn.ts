/** Starting a VMM that outlives the program that starts it. */

import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { open, stat } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";

import { MicroVmError, systemCodeOf } from "../errors.js";
import { identify } from "./process.js";
import type { ProcessIdentity } from "./process.js";
import { findProgram } from "./program.js";
import { storageError } from "./storage.js";

/** What to start. */
export interface SpawnRequest {
  /** An absolute path, or a name that is looked for on PATH. */
  readonly file: string;
  readonly args: readonly string[];
  /** Variables that the program gets beside the few of ours. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Absolute path of the file that takes stdout and stderr; appended to, mode 0600. */
  readonly log: string;
  /**
   * Soft limit of the size of any file that the program writes, in MiB (RLIMIT_FSIZE, getrlimit(2), SIGXFSZ
   * ignored): what goes beyond is dropped with EFBIG and the program goes on. The kernel looks at the offset of a
   * write, not at how far the file grows: **it must be at least the size of the largest disk image that the
   * program writes**, or the guest gets I/O errors beyond it. See {@link raiseFileSizeLimit} for a disk that grows.
   */
  readonly fileSizeLimitMiB: number;
  /** Absolute path of what the program makes once it is up, such as its control socket: it then counts as started at once. */
  readonly makes?: string;
  /**
   * Takes stdout instead of `log`, with a limit of its own: for a guest's console beside a large disk image, with
   * `path=/dev/stdout` as the VMM's serial file. Written by a small process (cat) that ends with the program; what
   * goes beyond the limit is read and dropped.
   */
  readonly console?: {
    /** Absolute path of the file; emptied first, mode 0600. */
    readonly file: string;
    readonly limitMiB: number;
    /** Absolute path of a name by which the program opens the pipe, to be removed by the caller; absent: it writes to its stdout. */
    readonly pipe?: string;
  };
}

const BYTES_PER_MIB = 1_048_576;

/** How long the shell may take to become the program, in milliseconds. */
const START_MILLISECONDS = 10_000;

/** How long a program must live to count as started, in milliseconds, unless it shows earlier that it is up. */
const WATCH_MILLISECONDS = 100;

const POLL_MILLISECONDS = 2;

/** What of our environment a VMM may need; a Pulumi program's has secrets in it. */
const KEPT_VARIABLES = [
  "PATH",
  "HOME",
  "TMPDIR",
  "LANG",
  "XDG_RUNTIME_DIR",
  "LD_LIBRARY_PATH",
  "QEMU_MODULE_DIR",
];

/** An ignored signal stays ignored over exec, and exec keeps the pid. */
const RUN = 'umask 077; trap "" XFSZ; exec "$@"';

/**
 * $1 is the file, $2 its limit in bytes, $3 prlimit, $4 the name of the pipe, $5 says whether it keeps that. The pipe is opened for
 * both ends first, so that neither open waits (fifo(7)). The logger reads the pipe to its end, so that the program never gets EPIPE.
 */
const RUN_WITH_CONSOLE = `umask 077; trap "" XFSZ
: > "$1" || exit 126
mkfifo -m 600 "$4" || exit 126
exec 3<> "$4" 4< "$4" 5> "$4" 3>&-
[ "$5" = keep ] || rm -f "$4"
sh -c '"$3" --fsize="$2" cat >> "$1"; exec cat > /dev/null' console "$1" "$2" "$3" <&4 4<&- 5>&- &
shift 5
exec "$@" >&5 4<&- 5>&-`;

/**
 * Starts a program in a session of its own, with nothing of ours but PATH, HOME and the like in its environment.
 *
 * @returns Once the program itself runs (the pid is the one that ran the shell in front of it) and has lived for
 * 100 ms, or has made what it makes.
 * @throws MicroVmError `host-unusable` when the program or prlimit is not found, `vmm-failed` with its output when
 * it ends at once, `state-directory` when the log cannot be written.
 */
export async function spawnDetached(request: SpawnRequest): Promise<ProcessIdentity> {
  const { file, args, log, fileSizeLimitMiB } = request;
  const program = findProgram(file, "install it, or correct its path");
  const prlimit = findProgram("prlimit", "install the package util-linux");
  const command = [prlimit, `--fsize=${fileSizeLimitMiB * BYTES_PER_MIB}:`, program, ...args];
  const output = await openLog(log);
  try {
    const start = (await output.stat()).size;
    const shell = ["/bin/sh", ...shellArguments(request, prlimit, command)];
    const child = spawn("/bin/sh", shell.slice(1), {
      cwd: "/",
      detached: true, // a session of its own: setsid(2)
      env: {
        ...Object.fromEntries(KEPT_VARIABLES.map((name) => [name, process.env[name]])),
        ...request.environment,
      },
      stdio: ["ignore", output.fd, output.fd],
    });
    await once(child, "spawn");
    child.unref();
    const identity = await untilStarted(child, request, program, [shell, command]);
    if (identity !== undefined) return identity;
    throw new MicroVmError(
      "vmm-failed",
      `${program} ended at once (${endOf(child)}): ${await outputSince(log, start)}`,
    );
  } finally {
    await output.close();
  }
}

/**
 * Raises the limit that {@link spawnDetached} set, before a disk image of that very process grows beyond it.
 *
 * @throws MicroVmError `vmm-failed` when the process has ended or the limit cannot be raised.
 */
export async function raiseFileSizeLimit(identity: ProcessIdentity, fileSizeLimitMiB: number): Promise<void> {
  const prlimit = findProgram("prlimit", "install the package util-linux");
  const limit = `--fsize=${fileSizeLimitMiB * BYTES_PER_MIB}:`;
  const child = spawn(prlimit, ["--pid", String(identity.pid), limit], { stdio: "ignore" });
  await once(child, "exit");
  if (child.exitCode === 0) return;
  throw new MicroVmError(
    "vmm-failed",
    `prlimit could not raise the file size limit of process ${identity.pid} to ${fileSizeLimitMiB} MiB`,
  );
}

function shellArguments({ console }: SpawnRequest, prlimit: string, command: readonly string[]): string[] {
  if (console === undefined) return ["-c", RUN, "sh", ...command];
  const limit = String(console.limitMiB * BYTES_PER_MIB);
  const { file, pipe } = console;
  const name = pipe === undefined ? [`${file}.pipe`, "drop"] : [pipe, "keep"];
  return ["-c", RUN_WITH_CONSOLE, "sh", file, limit, prlimit, ...name, ...command];
}

async function openLog(path: string): Promise<FileHandle> {
  try {
    return await open(path, "a", 0o600);
  } catch (error) {
    throw storageError(error, `write ${path}`);
  }
}

/**
 * The identity once the process is none of the commands in front of the program any more, and has lived for a
 * while since; undefined when it has ended.
 */
async function untilStarted(
  child: ChildProcess,
  { makes }: SpawnRequest,
  program: string,
  inFront: readonly (readonly string[])[],
): Promise<ProcessIdentity | undefined> {
  const { pid } = child;
  if (pid === undefined) throw new Error("a spawned process has a pid");
  const passing = new Set(["", ...inFront.map((argv) => `${argv.join("\0")}\0`)]);
  const deadline = performance.now() + START_MILLISECONDS;
  let started: number | undefined;
  while (child.exitCode === null && child.signalCode === null) {
    const now = performance.now();
    if (!passing.has(commandLineOf(pid))) started ??= now;
    const isUp = started !== undefined && makes !== undefined && existsSync(makes);
    if (isUp || (started !== undefined && now - started >= WATCH_MILLISECONDS)) return identify(pid);
    if (started === undefined && now >= deadline) {
      child.kill("SIGKILL");
      throw new MicroVmError(
        "vmm-failed",
        `${program} was not started within ${START_MILLISECONDS / 1000} s; is this host overloaded?`,
      );
    }
    await delay(POLL_MILLISECONDS);
  }
  return undefined;
}

function commandLineOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch (error) {
    const code = systemCodeOf(error);
    if (code === "ENOENT" || code === "ESRCH") return ""; // it has ended
    throw error;
  }
}

function endOf(child: ChildProcess): string {
  return child.signalCode === null ? `exit code ${child.exitCode}` : `signal ${child.signalCode}`;
}

const SHOWN_BYTES = 2000;

async function outputSince(log: string, start: number): Promise<string> {
  const { size } = await stat(log);
  const handle = await open(log, "r");
  try {
    const from = Math.max(start, size - SHOWN_BYTES);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(SHOWN_BYTES), 0, SHOWN_BYTES, from);
    return buffer.toString("utf8", 0, bytesRead).trim() || "it printed nothing";
  } finally {
    await handle.close();
  }
}
