/** Removal of every VM of the server's: what can be removed is, and of the rest is told why not. */

import { messageOf } from "../errors.js";
import { listRecords } from "../host/record.js";
import { forEachAtOnce } from "./at-once.js";
import { ORGANIZATION } from "./recover.js";
import { Refusal } from "./refusal.js";

/** How many VMs are removed at once. */
const REMOVALS_AT_ONCE = 4;

/** What was done. */
export interface Removal {
  /** How many VMs were removed. */
  readonly removed: number;
  /** Those that are left, by name, with the reason. */
  readonly failed: ReadonlyMap<string, string>;
}

/**
 * Removes the VMs of a state directory that are the server's. A VM whose record cannot be read is left: whose it is, nobody can tell.
 *
 * @param stateDirectory Absolute path.
 * @param creating Names of VMs that are being made, which may have no record yet.
 * @param remove Removes one; a Refusal 404 says that it has gone by itself.
 */
export async function removeAll(
  stateDirectory: string,
  creating: Iterable<string>,
  remove: (vmName: string) => Promise<void>,
): Promise<Removal> {
  const names = new Set(creating);
  const failed = new Map<string, string>();
  for (const listed of await listRecords(stateDirectory)) {
    if ("error" in listed) failed.set(listed.vmName, messageOf(listed.error));
    else if (listed.record.owner.organization === ORGANIZATION) names.add(listed.vmName);
  }
  const readable = [...names].filter((vmName) => !failed.has(vmName));
  let removed = 0;
  await forEachAtOnce(readable, REMOVALS_AT_ONCE, async (vmName) => {
    try {
      await remove(vmName);
      removed += 1;
    } catch (error) {
      if (error instanceof Refusal && error.statusCode === 404) return;
      failed.set(vmName, messageOf(error));
    }
  });
  return { removed, failed };
}
