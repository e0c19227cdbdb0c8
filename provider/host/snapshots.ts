/**
 * Snapshots on this host: `STATE/.snapshots/<id>/` holds what the VMM wrote, a copy of the stateful disk, and a record. A snapshot
 * is renamed to its place when all of it is on the disk, so what is there under that name is whole, until somebody takes from it.
 */

import { mkdir, readdir, rename, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";

import { z } from "zod";

import type { Owner } from "../backends/backend.js";
import type { BootConfiguration } from "../boot/boot.js";
import { MicroVmError, messageOf, shown } from "../errors.js";
import { absolute, isSnapshotId, type SnapshotPaths, snapshotPaths } from "./paths.js";
import { isAlive, type ProcessIdentity } from "./process.js";
import { bootConfiguration, isSameOwner } from "./record.js";
import { isAbsent, isOccupied, lookFor, readIfThere, storageError, syncDirectory } from "./storage.js";

/** What a snapshot says of itself: the VM that it was taken of, and what that VM was to its host. */
export interface SnapshotRecord {
  readonly version: 1;
  readonly id: string;
  readonly owner: Owner;
  /** The process that took it. */
  readonly creator: ProcessIdentity;
  /** ISO 8601. */
  readonly takenAt: string;
  readonly vmName: string;
  readonly instance: string;
  /** As it was when the snapshot was taken. */
  readonly boot: BootConfiguration;
  /** What the VMM wrote, by file name. */
  readonly files: readonly string[];
  /** Context id of the guest's vsock; the guest keeps it. */
  readonly vsockCid: number;
  /** Pairs of queues of the guest's network device; the guest keeps them. */
  readonly queuePairs: number;
  /** Size and time of change of the root disk's image; the guest may have any part of it in memory. */
  readonly rootfsStamp?: string;
}

/** What is there of a snapshot. `damaged`: a file of it is missing or its record cannot be read. */
export type SnapshotState = "there" | "damaged" | "gone";

const snapshotRecord: z.ZodType<SnapshotRecord> = z.looseObject({
  version: z.literal(1),
  id: z.string(),
  owner: z.looseObject({ organization: z.string(), urn: z.string(), program: z.string() }),
  creator: z.looseObject({ pid: z.number().int(), startTime: z.string(), bootId: z.string() }),
  takenAt: z.string(),
  vmName: z.string(),
  instance: z.string().regex(/^[0-9a-f]{16}$/),
  boot: bootConfiguration,
  files: z.array(z.string().regex(/^[a-z][a-z.-]*$/)),
  vsockCid: z.number().int(),
  queuePairs: z.number().int(),
  rootfsStamp: z.string().optional(),
});

/** The text of a snapshot's record. */
export function snapshotText(record: SnapshotRecord): string {
  snapshotRecord.parse(record);
  return `${JSON.stringify(record, undefined, 2)}\n`;
}

/**
 * The record of a snapshot.
 *
 * @returns undefined when there is none of that id.
 * @throws MicroVmError `record-unreadable` when it is torn or of another version; `state-directory` when it cannot be read.
 */
export async function readSnapshot(stateDirectory: string, id: string): Promise<SnapshotRecord | undefined> {
  const { record: path, directory } = snapshotPaths(stateDirectory, id);
  const text = await readIfThere(path);
  if (text === undefined) {
    if (await lookFor(directory)) throw unreadable(path, id, "is not there");
    return undefined;
  }
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw unreadable(path, id, `is torn: ${messageOf(error)}`);
  }
  const parsed = snapshotRecord.safeParse(content);
  if (!parsed.success) {
    const why = z.prettifyError(parsed.error).replaceAll(/\s+/g, " ");
    throw unreadable(path, id, `is not the record of a snapshot that this release reads: ${why}`);
  }
  if (parsed.data.id !== id) throw unreadable(path, id, `is that of ${shown(parsed.data.id)}`);
  return parsed.data;
}

function unreadable(path: string, id: string, why: string): MicroVmError {
  return new MicroVmError(
    "record-unreadable",
    `${path} ${why}; the snapshot ${id} cannot be restored: take another, and remove that folder`,
  );
}

/** Looks at every file of a snapshot. */
export async function observeSnapshot(stateDirectory: string, id: string): Promise<SnapshotState> {
  try {
    const record = await readSnapshot(stateDirectory, id);
    if (record === undefined) return "gone";
    for (const path of filesOf(snapshotPaths(stateDirectory, id), record)) {
      if (!(await lookFor(path))) return "damaged";
    }
    return "there";
  } catch (error) {
    if (error instanceof MicroVmError && error.code === "record-unreadable") return "damaged";
    throw error;
  }
}

/** What a snapshot consists of, beside its record. */
export function filesOf(
  paths: Pick<SnapshotPaths, "vmm" | "statefulDisk">,
  { files, boot }: SnapshotRecord,
): string[] {
  const own = files.map((name) => join(paths.vmm, name));
  return boot.statefulDiskMiB > 0 ? [...own, paths.statefulDisk] : own;
}

/**
 * Puts a prepared folder, all of which is on the disk, in its place.
 *
 * @param prepared Absolute path of a folder on the state directory's file system.
 */
export async function keepSnapshot(stateDirectory: string, id: string, prepared: string): Promise<void> {
  const { directory, parent } = snapshotPaths(stateDirectory, id);
  try {
    await mkdir(parent, { recursive: true, mode: 0o700 });
    await rename(prepared, directory);
    await syncDirectory(parent);
  } catch (error) {
    throw storageError(error, `make ${directory}`);
  }
}

/**
 * Removes a snapshot, whatever is left of it: renamed aside first, so that it counts as one or is gone. Idempotent.
 *
 * @throws MicroVmError `state-directory`
 */
export async function removeSnapshot(stateDirectory: string, id: string): Promise<void> {
  const { directory, parent, removing } = snapshotPaths(stateDirectory, id);
  try {
    await rm(removing, { recursive: true, force: true });
    await rename(directory, removing);
    await syncDirectory(parent);
  } catch (error) {
    if (!isAbsent(error) && !isOccupied(error)) throw storageError(error, `remove ${directory}`);
  }
  try {
    await rm(removing, { recursive: true, force: true });
    await rmdir(parent);
  } catch (error) {
    // Other snapshots are there, or there never was one.
    if (!isAbsent(error) && !isOccupied(error)) throw storageError(error, `remove ${removing}`);
  }
}

/**
 * Removes the snapshots of a resource that the engine never heard of: taken by a process that has ended since, without the engine's
 * having shown that its state holds them.
 *
 * @returns Their ids.
 */
export async function removeUnclaimed(stateDirectory: string, owner: Owner): Promise<string[]> {
  const removed: string[] = [];
  for (const id of await snapshotIds(stateDirectory)) {
    const paths = snapshotPaths(stateDirectory, id);
    let record: SnapshotRecord | undefined;
    try {
      record = await readSnapshot(stateDirectory, id);
    } catch (error) {
      if (!(error instanceof MicroVmError && error.code === "record-unreadable")) throw error;
      continue; // whose it is cannot be told
    }
    if (record === undefined || isAlive(record.creator) || (await lookFor(paths.confirmed))) continue;
    if (!isSameOwner(record.owner, owner)) continue;
    await removeSnapshot(stateDirectory, id);
    removed.push(id);
  }
  return removed;
}

async function snapshotIds(stateDirectory: string): Promise<string[]> {
  const folder = join(absolute(stateDirectory), ".snapshots");
  try {
    return (await readdir(folder)).filter(isSnapshotId);
  } catch (error) {
    if (isAbsent(error)) return [];
    throw storageError(error, `list ${folder}`);
  }
}
