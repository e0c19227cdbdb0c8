/** One holder at a time, in all processes of this host. */

import { spawn } from "node:child_process";
import { once } from "node:events";

import { findProgram } from "./program.js";

/**
 * Runs `act` while nobody else holds the lock of this file or folder. The lock is that of flock(2), held by a small process that ends
 * with this one: however this one ends, nothing stays locked.
 *
 * @param path Absolute path of what is locked; it is there.
 * @param timeoutSeconds How long to wait for another holder.
 * @throws whatever `act` throws; what `busy` makes, when the lock is not to be had in time.
 */
export async function withFileLock<Result>(
  path: string,
  timeoutSeconds: number,
  busy: () => Error,
  act: () => Promise<Result>,
): Promise<Result> {
  const flock = findProgram("flock", "install the package util-linux");
  const hold = ["sh", "-c", "echo locked; exec cat"];
  const child = spawn(flock, ["--timeout", String(timeoutSeconds), path, ...hold], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  const ended = once(child, "close");
  const [first] = await Promise.race([once(child.stdout, "data"), ended]);
  if (!(first instanceof Buffer)) throw busy();
  try {
    return await act();
  } finally {
    child.stdin.end();
    await ended;
  }
}
