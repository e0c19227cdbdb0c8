/** One holder at a time, in all processes of this host. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { open } from "node:fs/promises";

import { findProgram } from "./program.js";

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
  const flock = findProgram("flock", "install the package util-linux");
  const file = await open(path, "r");
  try {
    const child = spawn(flock, ["--timeout", String(timeoutSeconds), "3"], {
      stdio: ["ignore", "ignore", "ignore", file.fd],
    });
    const [code] = await once(child, "exit");
    if (code !== 0) throw busy();
    return await act(file.fd);
  } finally {
    await file.close();
  }
}
