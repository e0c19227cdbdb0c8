/** Taking a name for an export, with its database and its ports, for good or not at all. */

import { randomUUID } from "node:crypto";
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import type { Work } from "../backends/backend.js";
import { MicroVmError } from "../errors.js";
import { withFileLock } from "../host/file-lock.js";
import { isAlive } from "../host/process.js";
import { isSameOwner } from "../host/record.js";
import { lookFor, storageError, syncDirectory, writeNewFile } from "../host/storage.js";
import { noticeText } from "../notices.js";
import { exportMarker, exportPaths } from "./paths.js";
import { portOfExport, sharedPort } from "./ports.js";
import { type ExportRecord, exportText, listExports, readExport } from "./record.js";

/** How long a live creator of the same resource may take to end or undo, in seconds. */
const WAIT_SECONDS = 15;
const POLL_MILLISECONDS = 100;
/** Each holder has the lock for some milliseconds, or while it ends a server that nobody claims. */
const LOCK_SECONDS = 60;

/**
 * Takes `record.name`, and with it the database and the ports: no other export of this state directory has them. The whole of it happens
 * under one lock, so that two creates at once cannot both find the place free.
 *
 * What a killed create of the same resource left is undone first.
 *
 * @param end Ends the server of an export and removes it.
 * @throws MicroVmError `name-taken`, `port-taken`, `database-unusable`, `create-in-progress`, `record-unreadable`, `state-directory`
 */
export async function claimExport(
  stateDirectory: string,
  record: ExportRecord,
  work: Work,
  end: (record: ExportRecord) => Promise<void>,
): Promise<void> {
  const { parent } = exportPaths(stateDirectory, record.name);
  await makeParent(parent);
  const deadline = performance.now() + WAIT_SECONDS * 1000;
  for (;;) {
    if (work.signal.aborted) throw interrupted();
    const other = await withFileLock(
      parent,
      LOCK_SECONDS,
      () => busy(parent),
      async () => {
        await sweep(parent);
        return await takeOrFind(stateDirectory, record, work, end);
      },
    );
    if (other === undefined) return;
    if (performance.now() >= deadline) throw inProgress(other);
    await delay(POLL_MILLISECONDS);
  }
}

async function makeParent(parent: string): Promise<void> {
  try {
    await mkdir(parent, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw storageError(error, `make ${parent}`);
  }
}

/** @returns The creator to wait for; undefined when the name is taken for us. */
async function takeOrFind(
  stateDirectory: string,
  record: ExportRecord,
  work: Work,
  end: (record: ExportRecord) => Promise<void>,
): Promise<ExportRecord | undefined> {
  const present = await readExport(stateDirectory, record.name);
  if (present !== undefined) {
    if (!isSameOwner(present.owner, record.owner) || (await isConfirmedExport(stateDirectory, present))) {
      throw nameTaken(present, record);
    }
    if (isAlive(present.creator)) return present;
    await end(present);
    work.notice(noticeText("export-reclaimed", { export: present.name, created: present.createdAt }));
  }
  for (const other of await listExports(stateDirectory)) assertApart(record, other);
  await takePlace(stateDirectory, record);
  return undefined;
}

/** Whether the engine has shown that its state holds the instance. */
async function isConfirmedExport(stateDirectory: string, { name, instance }: ExportRecord): Promise<boolean> {
  return await lookFor(exportMarker(stateDirectory, name, instance));
}

/** Two servers on one database would tear it; two on one port cannot be. */
function assertApart(record: ExportRecord, other: ExportRecord): void {
  const { serving, place } = record;
  if (serving.type === "agentfs" && other.serving.type === "agentfs") {
    if (serving.databasePath === other.serving.databasePath) {
      throw new MicroVmError(
        "database-unusable",
        `${serving.databasePath} is served by the export ${other.name} (${other.owner.urn} of the program in ${other.owner.program}); ` +
          "give each resource a database of its own",
        { input: "databasePath" },
      );
    }
  }
  const shared = sharedPort(place, other.place);
  if (shared !== undefined) throw portOfExport(shared, other.name, other.owner.urn);
}

/** Prepared aside and renamed: a folder without a record never stands there. */
async function takePlace(stateDirectory: string, record: ExportRecord): Promise<void> {
  const { parent, directory } = exportPaths(stateDirectory, record.name);
  const prepared = join(parent, `.new-${randomUUID()}`);
  try {
    await mkdir(prepared, { mode: 0o700 });
    await writeNewFile(join(prepared, "export.json"), exportText(record));
    await rm(directory, { recursive: true, force: true }); // what is left of one that lost its record
    await rename(prepared, directory);
    await syncDirectory(parent);
  } catch (error) {
    await rm(prepared, { recursive: true, force: true });
    throw storageError(error, `make ${directory}`);
  }
}

/** Under the lock nobody prepares anything: what is there was left by a killed process. */
async function sweep(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    if (name.startsWith(".new-")) await rm(join(parent, name), { recursive: true, force: true });
  }
}

function busy(parent: string): MicroVmError {
  return new MicroVmError(
    "create-in-progress",
    `another process has held the lock of ${parent} for ${LOCK_SECONDS} s; see which with \`lslocks\`, end it, and run again`,
  );
}

function inProgress(other: ExportRecord): MicroVmError {
  return new MicroVmError(
    "create-in-progress",
    `process ${other.creator.pid} makes the export ${other.name} of the same resource since ${other.createdAt}; ` +
      "wait for that `pulumi up` to end, then run again",
  );
}

function nameTaken(present: ExportRecord, { owner }: ExportRecord): MicroVmError {
  const text = isSameOwner(present.owner, owner)
    ? `this resource has an export ${present.name} already (instance ${present.instance}), which this stack's state does not hold; ` +
      `import the lost state again, or remove it with \`microvm rm ${present.name}\``
    : `the export ${present.name} belongs to ${present.owner.urn} of the program in ${present.owner.program}; ` +
      `rename this resource, or remove that export with \`microvm rm ${present.name}\``;
  return new MicroVmError("name-taken", text);
}

function interrupted(): MicroVmError {
  return new MicroVmError(
    "interrupted",
    "the Pulumi engine ended while the export's name was being taken; run `pulumi up` again",
  );
}
