/** Rules over the inputs that restore a VM from a snapshot. */

import type { InputName, InputValues } from "./schema.js";
import type { Failure } from "./validate.js";

/**
 * What keeps a snapshot from being restored onto its root, as far as the inputs tell. A restored guest writes again what it had in
 * flight, over whatever happened on the root since. Whether that was anything cannot be told from here (the times of the export's own
 * folder say nothing of the files below it), so a writable root counts as used.
 *
 * A disk root is read-only, and an NFS root is where `kernelArgs` end in `ro` (the last of `ro` and `rw` counts, init/do_mounts.c).
 */
export function staleRootFailures(values: InputValues, unknown: ReadonlySet<InputName>): Failure[] {
  const { snapshotId, acceptStaleRoot, useNfsRoot, kernelArgs = [] } = values;
  if (snapshotId === undefined || useNfsRoot !== true || acceptStaleRoot === true) return [];
  if (unknown.has("acceptStaleRoot") || unknown.has("kernelArgs")) return [];
  if (kernelArgs.findLast((word) => word === "ro" || word === "rw") === "ro") return [];
  const text =
    'expected true beside snapshotId: the NFS root is writable, and the restored guest goes on from the past, writing over what happened there since. Set it if the root is as it was then (a snapshot of it, a copy put in its place), or add "ro" to kernelArgs before the snapshot is taken';
  return [{ input: "acceptStaleRoot", text: `${text}, got ${String(acceptStaleRoot ?? "nothing")}` }];
}
