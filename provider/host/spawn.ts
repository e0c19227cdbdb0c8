/** Starting a VMM that outlives the program that starts it. */

import type { ProcessIdentity } from "./process.js";

/** What to start. */
export interface SpawnRequest {
  /** A path, or a name that is looked for on PATH. */
  readonly file: string;
  readonly args: readonly string[];
  /** Absolute path of the file that takes stdout and stderr; appended to, mode 0600. */
  readonly log: string;
  /**
   * Soft limit of the size of any file that the program writes, in MiB (RLIMIT_FSIZE, getrlimit(2), SIGXFSZ ignored): what goes
   * beyond is dropped with EFBIG and the program goes on. The kernel looks at the offset of a write, not at how
   * far the file grows: **it must be at least the size of the largest disk image that the program writes**,
   * or the guest gets I/O errors beyond it.
   */
  readonly fileSizeLimitMiB: number;
}

/**
 * Starts a program in a session of its own, with nothing of ours but PATH, HOME and the like in its environment.
 *
 * @returns Once the program itself runs (the pid is the one that ran the shell in front of it) and has lived for 100 ms.
 * @throws MicroVmError `host-unusable` when the program or prlimit is not found, `vmm-failed` with its output when it ends at once.
 */
export async function spawnDetached(request: SpawnRequest): Promise<ProcessIdentity> {
  throw new Error("not written yet", { cause: request });
}
