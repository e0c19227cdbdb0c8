/** The bound of the files that a running VMM writes. */

import { execFile } from "node:child_process";
import { promisify } from "node:util";

import { MicroVmError, messageOf } from "../../errors.js";
import type { ProcessIdentity } from "../../host/process.js";

const run = promisify(execFile);

/**
 * Raises the soft limit of a running process's files (RLIMIT_FSIZE, prlimit(1)), so that a grown disk can be written to its end.
 *
 * @throws MicroVmError `host-unusable` when prlimit is missing or refuses.
 */
export async function raiseFileSizeLimit(identity: ProcessIdentity, limitMiB: number): Promise<void> {
  try {
    await run("prlimit", ["--pid", String(identity.pid), `--fsize=${limitMiB * 1024 * 1024}:`]);
  } catch (error) {
    throw new MicroVmError(
      "host-unusable",
      `the VMM's limit for the size of a file could not be raised to ${limitMiB} MiB by prlimit (package util-linux): ${messageOf(error)}`,
      { cause: error },
    );
  }
}
