/** Snapshots by the names that callers give them. */

import { createHash } from "node:crypto";
import type { BootConfiguration } from "../boot/boot.js";
import { shown } from "../errors.js";
import { isSnapshotId, isVmName } from "../host/paths.js";
import { readSnapshot } from "../host/snapshots.js";
import { staleRootFailures } from "../spec/snapshot-rules.js";
import { Refusal } from "./refusal.js";
import type { StartVmRequest } from "./wire.js";

/** What a caller may call a snapshot: a word of printable ASCII. */
const NAME = /^[\x21-\x7e]{1,256}$/;

/**
 * The id on this host of a VM's snapshot: its name, where that is one, else made from it, so that no name ever becomes a path.
 *
 * @throws Refusal 400
 */
export function snapshotIdOf(vmName: string, name: string): string {
  if (!NAME.test(name)) {
    throw new Refusal(
      400,
      `snapshotId: expected a word of at most 256 printable ASCII characters, got ${shown(name)}`,
      "invalid-input",
    );
  }
  if (isSnapshotId(name) && name.startsWith(`${vmName}-`)) return name;
  return `${vmName}-${createHash("sha256").update(name).digest("hex").slice(0, 16)}`;
}

/** The name of the VM that a snapshot id tells, where it is one that the server made up; a request may leave vmName out then. */
export function vmNameOf(snapshotId: string): string | undefined {
  return isSnapshotId(snapshotId) ? snapshotId.slice(0, -17) : undefined;
}

/**
 * What the guest of a snapshot was booted from: a restored guest is the one that was saved.
 *
 * @throws Refusal 400 or 404
 */
export async function savedBoot(
  stateDirectory: string,
  vmName: string,
  { snapshotId = "", acceptStaleRoot }: StartVmRequest,
): Promise<{ readonly id: string; readonly boot: BootConfiguration }> {
  const id = isVmName(vmName) ? snapshotIdOf(vmName, snapshotId) : undefined;
  const saved = id === undefined ? undefined : await readSnapshot(stateDirectory, id);
  if (id === undefined || saved === undefined) {
    throw new Refusal(
      404,
      `snapshotId: the VM ${shown(vmName)} has no snapshot ${shown(snapshotId)}; a snapshot is restored under the vmName that it was taken of`,
      "file-unusable",
    );
  }
  const { boot } = saved;
  const values = {
    snapshotId,
    acceptStaleRoot,
    useNfsRoot: boot.root.type === "nfs",
    kernelArgs: boot.cmdline.split(" "),
  };
  const [stale] = staleRootFailures(values, new Set());
  if (stale !== undefined) throw new Refusal(400, `${stale.input}: ${stale.text}`, "invalid-input");
  return { id, boot };
}
