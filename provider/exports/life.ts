/** The life of an export: made, looked at, started again, removed. All of it, or nothing is left. */

import { rename, rm } from "node:fs/promises";
import { join } from "node:path";

import type { Work } from "../backends/backend.js";
import { MicroVmError, messageOf } from "../errors.js";
import { isAbsent, isOccupied, storageError, syncDirectory } from "../host/storage.js";
import { noticeText } from "../notices.js";
import { type DatabaseKey, ensureDatabase, removePreparation } from "./agentfs.js";
import { claimExport } from "./claim.js";
import { listensEverywhere } from "./listening.js";
import { exportPaths } from "./paths.js";
import { type ExportRecord, inodeOf, readExport, writeExport } from "./record.js";
import { endServers, serversOf, startServer } from "./server.js";

/**
 * What is there of an export. `stopped`: its record is there, no server runs. `damaged`: what it serves is gone or was made anew, or it
 * was never whole.
 */
export type ExportState = "running" | "stopped" | "damaged" | "gone";

/** One export to be made or started. */
export interface ExportRequest extends Work {
  readonly stateDirectory: string;
  readonly key?: DatabaseKey;
}

/**
 * Claims the name, the database and the ports, makes the database where there is none, and starts the server.
 *
 * @param record Phase `claimed`.
 * @throws MicroVmError; no process is left then, and no record. A database that was made stays: it is whole, and empty.
 */
export async function createExport(record: ExportRecord, request: ExportRequest): Promise<ExportRecord> {
  const { stateDirectory } = request;
  await claimExport(stateDirectory, record, request, (lost) => removeExport(stateDirectory, lost));
  try {
    return await start(record, request);
  } catch (error) {
    await undo(stateDirectory, record, error);
    throw error;
  }
}

/** Starts the server of an export whose process has ended. When it throws, the export is stopped as before. */
export async function restartExport(record: ExportRecord, request: ExportRequest): Promise<ExportRecord> {
  try {
    return await start(record, request);
  } catch (error) {
    await endServers(record);
    throw error;
  }
}

async function start(
  record: ExportRecord,
  { stateDirectory, signal, key, notice }: ExportRequest,
): Promise<ExportRecord> {
  const { serving, bridge, instance, name, place } = record;
  if (serving.type === "agentfs") await ensureDatabase(serving, instance, key);
  if (bridge !== undefined) {
    const { guardServer, holdBridge } = await import("../host/network/hold.js");
    await holdBridge(instance, bridge);
    // nfs-ganesha turns away by itself who is not among its clients; AgentFS serves whoever asks.
    if (serving.type === "agentfs" && !(await guardServer(instance, bridge, [place.port]))) {
      notice(noticeText("export-unguarded", { export: name, address: place.address }));
    }
  }
  const ready = await startServer(stateDirectory, record, { signal, key });
  if (place.address !== "0.0.0.0" && (await listensEverywhere(place.port))) {
    notice(noticeText("export-listens-everywhere", { export: name, address: place.address }));
  }
  return ready;
}

/** Takes back what create has done; the first error stays the one that is told. */
async function undo(stateDirectory: string, record: ExportRecord, error: unknown): Promise<void> {
  try {
    await removeExport(stateDirectory, record);
  } catch (failure) {
    const code = error instanceof MicroVmError ? error.code : "nfs-server-failed";
    throw new MicroVmError(
      code,
      `${messageOf(error)}\nUndoing it failed as well, so the export ${record.name} is still in ${stateDirectory}: ${messageOf(failure)}`,
      { cause: error },
    );
  }
}

/** Looks at the record, the process and what it serves. */
export async function observeExport(record: ExportRecord): Promise<Exclude<ExportState, "gone">> {
  const { phase, serving, inode } = record;
  if (phase === "claimed" || phase === "removing") return "damaged";
  const found = await inodeOf(serving);
  if (found === undefined || (inode !== undefined && inode !== found)) return "damaged";
  return serversOf(record).length > 0 ? "running" : "stopped";
}

/** The record of that very instance; undefined when it is gone. */
export async function ownExport(
  stateDirectory: string,
  name: string,
  instance: string,
): Promise<ExportRecord | undefined> {
  const record = await readExport(stateDirectory, name);
  return record?.instance === instance ? record : undefined;
}

/**
 * Ends the server and removes the export's own files; the database or the directory stays. Idempotent.
 *
 * @throws MicroVmError `state-directory`, `vmm-failed` when the process does not end.
 */
export async function removeExport(stateDirectory: string, record: ExportRecord): Promise<void> {
  const { name, instance, serving, bridge } = record;
  if ((await ownExport(stateDirectory, name, instance)) !== undefined) {
    await writeExport(stateDirectory, { ...record, phase: "removing" });
  }
  await endServers(record);
  if (serving.type === "agentfs") await removePreparation(serving.databasePath, instance);
  if (bridge !== undefined) {
    const { releaseBridge } = await import("../host/network/hold.js");
    await releaseBridge(instance);
  }
  await removeFolder(stateDirectory, record);
}

async function removeFolder(stateDirectory: string, { name, instance }: ExportRecord): Promise<void> {
  const { directory, parent } = exportPaths(stateDirectory, name);
  const aside = join(parent, `.removing-${instance}`);
  try {
    await rm(aside, { recursive: true, force: true });
    if ((await ownExport(stateDirectory, name, instance)) !== undefined) {
      await rename(directory, aside);
      await syncDirectory(parent);
      await rm(aside, { recursive: true, force: true });
    }
  } catch (error) {
    // Another process removes it at this moment.
    if (!isAbsent(error) && !isOccupied(error)) throw storageError(error, `remove ${directory}`);
  }
}
