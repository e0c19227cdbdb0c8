/** The record of one export, `STATE/.exports/<name>/export.json`: what must be known of its server after any crash. */

import { readdir, stat } from "node:fs/promises";

import { z } from "zod";

import type { Owner } from "../backends/backend.js";
import { MicroVmError, messageOf } from "../errors.js";
import { isVmName } from "../host/paths.js";
import type { ProcessIdentity } from "../host/process.js";
import { isAbsent, readIfThere, replaceFile, storageError } from "../host/storage.js";
import { exportPaths, exportsFolder } from "./paths.js";

/** What an AgentFS server serves. */
export interface AgentFsServing {
  readonly type: "agentfs";
  /** Absolute path, with the folder's symbolic links followed: one database has one path. */
  readonly databasePath: string;
  /** Absolute path of the folder under a copy-on-write overlay. */
  readonly baseDirectory?: string;
  /** Absolute path of the program. */
  readonly program: string;
}

/** What an nfs-ganesha serves. */
export interface GaneshaServing {
  readonly type: "ganesha";
  /** Absolute path of the exported folder. */
  readonly directory: string;
  readonly readOnly: boolean;
  readonly squash: "none" | "root" | "all";
  /** IPv4 addresses and networks that may mount. */
  readonly allowedClients: readonly string[];
}

/** Where the export is mounted from. */
export interface ServingPlace {
  /** IPv4 address that the server is bound to. */
  readonly address: string;
  /** TCP port of nfsd. */
  readonly port: number;
  /** TCP port of mountd. */
  readonly mountPort: number;
  /** Path of the export. */
  readonly path: string;
}

/** The bridge whose address a server is bound to; kept while the server is there. */
export interface HeldBridge {
  readonly bridge: string;
  readonly hostAddress: string;
  readonly prefixLength: number;
}

/** One export. */
export interface ExportRecord {
  readonly version: 1;
  readonly name: string;
  /** 16 random hex digits, new with every create. */
  readonly instance: string;
  readonly owner: Owner;
  /**
   * `claimed`: the name is ours, no server was started. `started`: one was, or is about to be. `ready`: it has answered. `removing`:
   * whoever finds it goes on with that.
   */
  readonly phase: "claimed" | "started" | "ready" | "removing";
  /** The process that runs create. */
  readonly creator: ProcessIdentity;
  /** The server's process, once there is one. */
  readonly server?: ProcessIdentity;
  readonly serving: AgentFsServing | GaneshaServing;
  readonly place: ServingPlace;
  /**
   * Inode number of the folder or the database when the server was last started. A server has it open: with another at its path, it
   * goes on serving what nobody sees any more.
   */
  readonly inode?: string;
  readonly bridge?: HeldBridge;
  /** ISO 8601. */
  readonly createdAt: string;
}

const identity = z.looseObject({
  pid: z.number().int().positive(),
  startTime: z.string(),
  bootId: z.string(),
});
const port = z.number().int().min(1).max(65_535);

const exportRecord: z.ZodType<ExportRecord> = z.looseObject({
  version: z.literal(1),
  name: z.string(),
  instance: z.string().regex(/^[0-9a-f]{16}$/),
  owner: z.looseObject({ organization: z.string(), urn: z.string(), program: z.string() }),
  phase: z.enum(["claimed", "started", "ready", "removing"]),
  creator: identity,
  server: identity.optional(),
  serving: z.discriminatedUnion("type", [
    z.looseObject({
      type: z.literal("agentfs"),
      databasePath: z.string(),
      baseDirectory: z.string().optional(),
      program: z.string(),
    }),
    z.looseObject({
      type: z.literal("ganesha"),
      directory: z.string(),
      readOnly: z.boolean(),
      squash: z.enum(["none", "root", "all"]),
      allowedClients: z.array(z.string()),
    }),
  ]),
  place: z.looseObject({ address: z.string(), port, mountPort: port, path: z.string() }),
  inode: z.string().regex(/^\d+$/).optional(),
  bridge: z
    .looseObject({ bridge: z.string(), hostAddress: z.string(), prefixLength: z.number().int() })
    .optional(),
  createdAt: z.string(),
});

/**
 * Inode number of what a server is to serve; undefined when it is not there.
 *
 * @throws MicroVmError `state-directory` where it cannot be told.
 */
export async function inodeOf(serving: ExportRecord["serving"]): Promise<string | undefined> {
  const path = serving.type === "agentfs" ? serving.databasePath : serving.directory;
  try {
    return String((await stat(path, { bigint: true })).ino);
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw storageError(error, `look for ${path}`);
  }
}

/** The text of a record's file. */
export function exportText(record: ExportRecord): string {
  exportRecord.parse(record);
  return `${JSON.stringify(record, undefined, 2)}\n`;
}

/**
 * The record of an export.
 *
 * @returns undefined when there is none.
 * @throws MicroVmError `record-unreadable` when it is torn or of another version; `state-directory` when it cannot be read.
 */
export async function readExport(stateDirectory: string, name: string): Promise<ExportRecord | undefined> {
  const { record: path, directory } = exportPaths(stateDirectory, name);
  const text = await readIfThere(path);
  if (text === undefined) return undefined;
  try {
    return exportRecord.parse(JSON.parse(text));
  } catch (error) {
    const why =
      error instanceof z.ZodError ? z.prettifyError(error).replaceAll(/\s+/g, " ") : messageOf(error);
    throw new MicroVmError(
      "record-unreadable",
      `${path} is not the record of an export that this release reads: ${why}; end the server that was started for it, and remove ${directory}`,
      { cause: error },
    );
  }
}

/**
 * Replaces the record of an export whose name is claimed.
 *
 * @throws MicroVmError `state-directory` when it cannot be written, or the export is not this instance's any more.
 */
export async function writeExport(stateDirectory: string, record: ExportRecord): Promise<void> {
  const { record: path, directory } = exportPaths(stateDirectory, record.name);
  const present = await readExport(stateDirectory, record.name);
  if (present?.instance !== record.instance) {
    throw new MicroVmError(
      "state-directory",
      `${directory} is not that of instance ${record.instance} any more: something removed the export meanwhile`,
    );
  }
  try {
    await replaceFile(path, exportText(record));
  } catch (error) {
    throw storageError(error, `write ${path}`);
  }
}

/** The records of all exports in a state directory; those that cannot be read are left out. */
export async function listExports(stateDirectory: string): Promise<ExportRecord[]> {
  const parent = exportsFolder(stateDirectory);
  let names: string[];
  try {
    names = (await readdir(parent)).filter(isVmName);
  } catch (error) {
    if (isAbsent(error)) return [];
    throw storageError(error, `list ${parent}`);
  }
  const records: ExportRecord[] = [];
  for (const name of names.toSorted()) {
    try {
      const record = await readExport(stateDirectory, name);
      if (record !== undefined) records.push(record);
    } catch (error) {
      // Whose server it is cannot be told; the server itself keeps its port and its database.
      if (!(error instanceof MicroVmError && error.code === "record-unreadable")) throw error;
    }
  }
  return records;
}
