/** What a server that was killed has left half-done, when the next one starts. */

import type { Work } from "../backends/backend.js";
import { backendOf } from "../backends/index.js";
import { messageOf } from "../errors.js";
import { confirm, isConfirmed } from "../host/confirm.js";
import { isAlive } from "../host/process.js";
import { listRecords, type VmRecord } from "../host/record.js";

/** Who the server's VMs belong to, whatever else is in its state directory. */
export const ORGANIZATION = "microvm-restserver";

/** What was found and done. */
export interface Recovery {
  /** VMs that are there. */
  readonly kept: readonly string[];
  /** Those of them whose start was killed before it was done. */
  readonly unfinished: readonly string[];
  /** VMs whose create was killed before it was done: nobody was told of them. */
  readonly undone: readonly string[];
  /** VMs whose removal was killed before it was done. */
  readonly removed: readonly string[];
  /** VMs of which one of these failed, with the reason; they are served as they are. */
  readonly failed: ReadonlyMap<string, string>;
}

/**
 * Undoes creates and finishes removals that were killed. A VM that was ready stays, also when its caller never heard of it: the list
 * shows it.
 *
 * @param stateDirectory Absolute path.
 */
export async function recover(stateDirectory: string, work: Work): Promise<Recovery> {
  const kept: string[] = [];
  const unfinished: string[] = [];
  const undone: string[] = [];
  const removed: string[] = [];
  const failed = new Map<string, string>();
  for (const listed of await listRecords(stateDirectory)) {
    const { vmName } = listed;
    if ("error" in listed) {
      failed.set(vmName, listed.error.message);
      continue;
    }
    const { record } = listed;
    if (record.owner.organization !== ORGANIZATION) continue;
    try {
      const fate = await fateOf(stateDirectory, record);
      if (fate === "keep") {
        await confirm(stateDirectory, vmName, record.instance);
        kept.push(vmName);
        if (record.phase !== "ready") unfinished.push(vmName);
      } else if (fate !== "leave") {
        await remove(stateDirectory, record, work);
        (fate === "undo" ? undone : removed).push(vmName);
      }
    } catch (error) {
      failed.set(vmName, messageOf(error));
    }
  }
  return { kept, unfinished, undone, removed, failed };
}

/** `leave`: another server on the same state directory has it in hand. */
async function fateOf(
  stateDirectory: string,
  { vmName, instance, phase, creator }: VmRecord,
): Promise<"keep" | "undo" | "remove" | "leave"> {
  if (phase === "removing") return "remove";
  if (phase === "ready" || (await isConfirmed(stateDirectory, vmName, instance))) return "keep";
  return isAlive(creator) ? "leave" : "undo";
}

async function remove(stateDirectory: string, record: VmRecord, work: Work): Promise<void> {
  const { vmName, instance, settings, phase } = record;
  await backendOf(settings.backend).remove({
    reference: { vmName, instance, stateDirectory },
    // A guest that nobody was told of has nothing to lose.
    shutdownTimeoutSeconds: phase === "removing" ? settings.shutdownTimeoutSeconds : 0,
    ...work,
  });
}
