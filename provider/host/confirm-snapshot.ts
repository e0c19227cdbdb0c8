/**
 * Whether the engine's state holds a snapshot. The Pulumi program's own process imports this: it loads nothing but Node's modules.
 */

import { snapshotPaths } from "./paths.js";
import { isAbsent, storageError, touch } from "./storage.js";

/**
 * Says that the engine's state holds this snapshot, so that no later create takes it for the leftover of a killed one. Idempotent.
 *
 * @throws MicroVmError `state-directory` when it cannot be written.
 */
export async function confirmSnapshot(stateDirectory: string, id: string): Promise<void> {
  const { confirmed } = snapshotPaths(stateDirectory, id);
  try {
    await touch(confirmed);
  } catch (error) {
    if (!isAbsent(error)) throw storageError(error, `confirm the snapshot ${id}`); // else it is gone
  }
}
