/** What a guest has changed, as a value of the program. */

import * as pulumi from "@pulumi/pulumi";
import type { Change, Changes } from "../provider/exports/changes.js";
import type { AgentFs } from "./agentfs.js";
import { shownError } from "./run-error.js";

export type { Change, Changes };

/** When to look. */
export interface GetChangesOptions {
  /** What must be done first: a VM, or an output of one. Default: nothing but the AgentFs itself. */
  readonly after?: pulumi.Input<unknown>;
}

/**
 * What was added, modified and deleted in a database against its base, as of now: asked in each preview and each `up`, while the server
 * and its VMs run or after they have ended. It takes the npm package `agentfs-sdk`.
 *
 * Where there is no database yet, as in the first preview, it is not known.
 */
export function getChanges(fs: AgentFs, { after }: GetChangesOptions = {}): pulumi.Output<Changes> {
  return pulumi.all([fs.databasePath, fs.id, settled(after)]).apply(async ([databasePath]) => {
    const { readChanges } = await import("../provider/exports/changes.js");
    try {
      return await readChanges(databasePath);
    } catch (error) {
      throw shownError(error);
    }
  });
}

/** A resource counts as done when its id is known. */
function settled(after: pulumi.Input<unknown>): pulumi.Output<boolean> {
  const awaited: unknown = pulumi.CustomResource.isInstance(after) ? after.id : after;
  return pulumi.all([awaited]).apply(() => true);
}
