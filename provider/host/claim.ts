/** Taking a name on this host, for good or not at all. */

import type { Work } from "../backends/backend.js";
import type { VmRecord } from "./record.js";

/** What a test may shorten. */
export interface ClaimOptions {
  /** How long a live creator of the same resource may take to end or undo, in seconds; 15 by default. */
  readonly waitSeconds?: number;
}

/**
 * Takes `record.vmName` for `record.instance` and writes the record, both in one step: the folder is prepared aside and renamed
 * into place (rename(2) onto a folder that is not empty fails). The state directory is open already.
 *
 * A record of the same name is reclaimed only if it has the same owner, was never confirmed, and its creator is dead.
 *
 * @throws MicroVmError `create-in-progress`, `name-taken`, `record-unreadable`, `state-directory`, `interrupted`
 */
export async function claimName(
  stateDirectory: string,
  record: VmRecord,
  work: Work,
  options: ClaimOptions = {},
): Promise<void> {
  throw new Error("not written yet", { cause: [stateDirectory, record, work, options] });
}
