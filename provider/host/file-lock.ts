/** One holder at a time, in all processes of this host. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { open } from "node:fs/promises";
import { text as textOf } from "node:stream/consumers";

import { findProgram } from "./program.js";

/** What a program has come to that was run as soon as the lock was had. */
export interface Ran {
  readonly code: number | null;
  /** What it wrote to its standard output, and to its standard error. */
  readonly printed: string;
  readonly words: string;
}

/** `$1` is flock, `$2` the time-out in seconds, the rest a command: one program to start in place of two. */
const LOCK_AND_RUN = '"$1" --timeout "$2" 3 || exit 75; shift 2; exec "$@"';

/** Of sysexits.h: none that the programs which are run in this way end with. */
const NO_LOCK = 75;

/**
 * Runs `act` while nobody else holds the lock of this file or folder. The lock is that of flock(2), and belongs to an open file: the
 * program flock(1) takes it on ours. However this process ends, nothing stays locked, but for children that were given the file: while
 * one of them still works, the lock is held.
 *
 * @param path Absolute path of what is locked; it is there.
 * @param timeoutSeconds How long to wait for another holder.
 * @param act Is given the descriptor of the open file.
 * @throws whatever `act` throws; what `busy` makes, when the lock is not to be had in time.
 */
export async function withFileLock<Result>(
  path: string,
  timeoutSeconds: number,
  busy: () => Error,
  act: (descriptor: number) => Promise<Result>,
): Promise<Result> {
  return await withFileLockAnd(
    path,
    timeoutSeconds,
    busy,
    ["true"],
    async (descriptor) => await act(descriptor),
  );
}

/**
 * As {@link withFileLock}, and first runs a command under the lock.
 *
 * @param command Program and arguments.
 * @param act Is given what the command has come to as well.
 */
export async function withFileLockAnd<Result>(
  path: string,
  timeoutSeconds: number,
  busy: () => Error,
  command: readonly string[],
  act: (descriptor: number, ran: Ran) => Promise<Result>,
): Promise<Result> {
  const flock = findProgram("flock", "install the package util-linux");
  const file = await open(path, "r");
  try {
    const args = ["-c", LOCK_AND_RUN, "sh", flock, String(timeoutSeconds), ...command];
    const child = spawn("/bin/sh", args, {
      stdio: ["ignore", "pipe", "pipe", file.fd],
      env: { ...process.env, LC_ALL: "C" },
    });
    const { stdout, stderr } = child;
    if (stdout === null || stderr === null) throw new Error("pipes were asked for");
    const [printed, words] = await Promise.all([textOf(stdout), textOf(stderr), once(child, "close")]);
    if (child.exitCode === NO_LOCK) throw busy();
    return await act(file.fd, { code: child.exitCode, printed, words });
  } finally {
    await file.close();
  }
}
