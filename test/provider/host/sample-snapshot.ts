/** A snapshot on the disk, as it is when it has been taken. */

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { thisProcess } from "../../../provider/host/process.js";
import { snapshotPaths } from "../../../provider/host/paths.js";
import { type SnapshotRecord, snapshotText } from "../../../provider/host/snapshots.js";
import { openStateDirectory } from "../../../provider/host/state-directory.js";
import { sampleRecord } from "./sample-record.js";

export const SNAPSHOT_ID = "web-fedcba9876543210";

export async function makeSnapshot(
  stateDirectory: string,
  changes: Partial<SnapshotRecord> = {},
): Promise<SnapshotRecord> {
  const { boot, owner, vmName } = sampleRecord();
  const record: SnapshotRecord = {
    version: 1,
    id: SNAPSHOT_ID,
    owner: { ...owner, urn: owner.urn.replace("MicroVm", "MicroVmSnapshot") },
    creator: thisProcess(),
    takenAt: "2026-11-24T08:00:00.000Z",
    vmName,
    instance: "0123456789abcdef",
    boot: { ...boot },
    files: ["config.json", "state.json", "memory-ranges"],
    vsockCid: 7,
    queuePairs: 1,
    ...changes,
  };
  await openStateDirectory(stateDirectory);
  const paths = snapshotPaths(stateDirectory, record.id);
  await mkdir(paths.vmm, { recursive: true, mode: 0o700 });
  for (const name of record.files) await writeFile(join(paths.vmm, name), "{}");
  if (record.boot.statefulDiskMiB > 0) await writeFile(paths.statefulDisk, "disk");
  await writeFile(paths.record, snapshotText(record));
  return record;
}
