/** Copies of disk images. */

import { execFile } from "node:child_process";
import { stat } from "node:fs/promises";
import { promisify } from "node:util";

import { MicroVmError, messageOf } from "../errors.js";
import { findProgram } from "./program.js";
import { storageError } from "./storage.js";

const run = promisify(execFile);

/**
 * Copies an image that nobody writes to meanwhile: blocks are shared where the file system can, and holes stay holes (cp(1) of GNU
 * coreutils). Node's own copy fills them.
 *
 * @param signal Ends the copying; what is there of the target is the caller's to remove.
 * @throws MicroVmError `state-directory`, `host-unusable` without cp.
 */
export async function copySparse(source: string, target: string, signal: AbortSignal): Promise<void> {
  const cp = findProgram("cp", "install the package coreutils");
  const args = ["--reflink=auto", "--sparse=auto", "--no-target-directory", "--", source, target];
  try {
    await run(cp, args, { signal, env: { ...process.env, LC_ALL: "C" } });
  } catch (error) {
    const words =
      typeof error === "object" && error !== null && "stderr" in error ? String(error.stderr).trim() : "";
    throw new MicroVmError(
      "state-directory",
      `cannot copy the disk ${source} to ${target}: ${words || messageOf(error)}`,
      { cause: error },
    );
  }
}

/** What differs after an image was changed: its size and the time of its last change. */
export async function imageStamp(path: string): Promise<string> {
  try {
    const { size, mtime } = await stat(path);
    return `size:${size},mtime:${mtime.toISOString()}`;
  } catch (error) {
    throw storageError(error, `look at ${path}`);
  }
}
