/** The audit: what has changed in an AgentFS database against its base, read from a copy, so that the server may run meanwhile. */

import { constants } from "node:fs";
import { copyFile, lstat, mkdtemp, open, readlink, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";

import { MicroVmError } from "../errors.js";
import { isAbsent, leadsNowhere, storageError } from "../host/storage.js";
import { type Database, withDatabase } from "./agentfs-sdk.js";

/** What a path is. */
export type FileKind = "file" | "directory" | "symlink" | "other";

/** One path that differs from the base. */
export interface Change {
  /** Absolute, in the guest's root. */
  readonly path: string;
  readonly change: "added" | "modified" | "deleted";
  readonly kind: FileKind;
  /** Permission bits in octal digits, `"0644"`; of what was deleted, those in the base. */
  readonly mode: string;
  /** Of a file its length, of a symbolic link that of its target, of anything else 0. */
  readonly sizeBytes: number;
}

/** What has changed. */
export interface Changes {
  /** Absolute path of the base, where the database is an overlay of one. */
  readonly baseDirectory?: string;
  /** By path. */
  readonly changes: readonly Change[];
}

/**
 * What was added, modified and deleted. What AgentFS has only copied (a file that was read, a folder in which something changed) is no
 * change.
 *
 * @throws MicroVmError `database-unusable` when there is no database, it is no AgentFS database, or it is written to so busily that no
 * copy of it was whole; `host-unusable` without the npm package agentfs-sdk.
 */
export async function readChanges(databasePath: string): Promise<Changes> {
  const folder = await mkdtemp(join(tmpdir(), "microvm-changes-"));
  try {
    const copy = join(folder, "copy.db");
    await copyDatabase(databasePath, copy);
    return await withDatabase(copy, databasePath, changesOf);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const MOST_COPIES = 20;
const PAUSE_MILLISECONDS = 50;

/**
 * Copies a database that may be written to. A writer appends to the log beside the database (`-wal`), whose torn end does not count;
 * the database itself changes only when the log is written back into it, and then the copy is made again (SQLite, "WAL-mode File
 * Format": a log that begins anew has other salts in its header).
 */
async function copyDatabase(from: string, to: string): Promise<void> {
  for (let attempt = 0; attempt < MOST_COPIES; attempt++) {
    const before = await stampOf(from);
    await copyIfThere(from, to);
    await copyIfThere(`${from}-wal`, `${to}-wal`);
    if (before === (await stampOf(from))) return;
    await rm(`${to}-wal`, { force: true });
    await delay(PAUSE_MILLISECONDS);
  }
  throw new MicroVmError(
    "database-unusable",
    `${from} is written to so busily that no copy of it was whole; stop its VMs or its server, and ask again`,
    { input: "databasePath" },
  );
}

const WAL_HEADER_BYTES = 32;

/** What changes when the log is written back: size and times of the database, the header of the log. */
async function stampOf(path: string): Promise<string> {
  try {
    const { size, mtimeNs, ctimeNs, ino } = await stat(path, { bigint: true });
    return [ino, size, mtimeNs, ctimeNs, await headOf(`${path}-wal`)].join(" ");
  } catch (error) {
    if (!isAbsent(error)) throw storageError(error, `read ${path}`);
    throw new MicroVmError(
      "database-unusable",
      `there is no database ${path}; give the id of one in .agentfs of this folder, or its path`,
      { input: "databasePath" },
    );
  }
}

async function headOf(path: string): Promise<string> {
  try {
    const handle = await open(path, "r");
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(WAL_HEADER_BYTES), 0, WAL_HEADER_BYTES, 0);
      return buffer.toString("hex", 0, bytesRead);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (isAbsent(error)) return "";
    throw error;
  }
}

async function copyIfThere(from: string, to: string): Promise<void> {
  try {
    await copyFile(from, to, constants.COPYFILE_FICLONE);
  } catch (error) {
    if (!isAbsent(error)) throw storageError(error, `copy ${from}`);
  }
}

/** The parts of AgentFS' tables that are read here (its SPEC.md). */
interface Tables {
  readonly base: string | undefined;
  readonly chunkBytes: number;
  readonly inodes: ReadonlyMap<number, Inode>;
  readonly entries: readonly { readonly name: string; readonly parent: number; readonly ino: number }[];
  /** Paths of the base that were deleted. */
  readonly whiteouts: readonly string[];
}

interface Inode {
  readonly ino: number;
  readonly mode: number;
  readonly size: number;
}

async function readTables(database: Database): Promise<Tables> {
  const isOverlay =
    (await database.all("SELECT name FROM sqlite_master WHERE name = 'fs_overlay_config'")).length > 0;
  const ofOverlay = async (sql: string) => (isOverlay ? await database.all(sql) : []);
  const [chunk] = await database.all("SELECT value FROM fs_config WHERE key = 'chunk_size'");
  const [config] = await ofOverlay("SELECT value FROM fs_overlay_config WHERE key = 'base_path'");
  const inodes = await database.all("SELECT ino, mode, size FROM fs_inode");
  const entries = await database.all("SELECT name, parent_ino, ino FROM fs_dentry");
  const whiteouts = await ofOverlay("SELECT path FROM fs_whiteout");
  const numbers = inodes.map((row) => ({
    ino: Number(row["ino"]),
    mode: Number(row["mode"]),
    size: Number(row["size"]),
  }));
  return {
    base: config === undefined ? undefined : String(config["value"]),
    chunkBytes: Number(chunk?.["value"] ?? 4096),
    inodes: new Map(numbers.map((inode) => [inode.ino, inode])),
    entries: entries.map((row) => ({
      name: String(row["name"]),
      parent: Number(row["parent_ino"]),
      ino: Number(row["ino"]),
    })),
    whiteouts: whiteouts.map((row) => String(row["path"])),
  };
}

const ROOT_INO = 1;

/** AgentFS copies a file of the base when it is read as well: it has changed only where content, kind or mode differ. */
async function changesOf(database: Database): Promise<Changes> {
  const tables = await readTables(database);
  const { base, inodes, entries } = tables;
  const deleted = new Set(tables.whiteouts);
  const changes: Change[] = [];
  const written = new Set<string>();
  for (const { path, ino } of pathsOf(entries)) {
    const inode = inodes.get(ino);
    if (inode === undefined) continue;
    written.add(path);
    const before = base === undefined ? undefined : await inBase(base, path);
    const after = describe(inode.mode, inode.size);
    if (base !== undefined && before !== undefined && isDeepStrictEqual(before, after)) {
      const isCopy =
        after.kind === "directory"
          ? !deleted.has(path)
          : await isSameContent(database, tables, inode, join(base, path));
      if (isCopy) continue;
    }
    changes.push({ path, change: before === undefined ? "added" : "modified", ...after });
  }
  for (const path of deleted) {
    if (written.has(path)) continue; // made anew, and told above
    const before = base === undefined ? undefined : await inBase(base, path);
    changes.push({ path, change: "deleted", ...(before ?? describe(0, 0)) });
  }
  const sorted = changes.toSorted((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  return { ...(base === undefined ? {} : { baseDirectory: base }), changes: sorted };
}

const COMPARED_BYTES = 1_048_576;

/** Whether a file of the database, equal in kind and size, has the content of one in the base, which may have gone meanwhile. */
async function isSameContent(
  database: Database,
  tables: Tables,
  inode: Inode,
  path: string,
): Promise<boolean> {
  try {
    return await hasContent(database, tables, inode, path);
  } catch (error) {
    if (leadsNowhere(error)) return false;
    throw storageError(error, `read ${path}`);
  }
}

async function hasContent(
  database: Database,
  { chunkBytes }: Tables,
  { ino, mode, size }: Inode,
  path: string,
): Promise<boolean> {
  const { kind } = describe(mode, size);
  if (kind === "symlink") {
    const [row] = await database.all(`SELECT target FROM fs_symlink WHERE ino = ${ino}`);
    return row?.["target"] === (await readlink(path));
  }
  if (kind !== "file") return true;
  const chunks = Math.max(1, Math.floor(COMPARED_BYTES / chunkBytes));
  const file = await open(path, "r");
  try {
    for (let first = 0; first * chunkBytes < size; first += chunks) {
      const start = first * chunkBytes;
      const wanted = Buffer.alloc(Math.min(chunks * chunkBytes, size - start));
      const rows = await database.all(
        `SELECT chunk_index, data FROM fs_data WHERE ino = ${ino} AND chunk_index >= ${first} AND chunk_index < ${first + chunks}`,
      );
      // What no chunk covers is a hole.
      for (const { chunk_index: index, data } of rows) {
        if (data instanceof Uint8Array) wanted.set(data, Number(index) * chunkBytes - start);
      }
      const { buffer, bytesRead } = await file.read(Buffer.alloc(wanted.length), 0, wanted.length, start);
      if (bytesRead !== wanted.length || !buffer.equals(wanted)) return false;
    }
    return true;
  } finally {
    await file.close();
  }
}

/** Every path of the database, folders before what is in them. */
function pathsOf(entries: Tables["entries"]): { readonly path: string; readonly ino: number }[] {
  const children = new Map<number, { name: string; ino: number }[]>();
  for (const { name, parent, ino } of entries) {
    const list = children.get(parent) ?? [];
    list.push({ name, ino });
    children.set(parent, list);
  }
  const found: { path: string; ino: number }[] = [{ path: "", ino: ROOT_INO }];
  for (let next = 0; next < found.length; next++) {
    const { path, ino } = found[next] ?? { path: "", ino: 0 };
    for (const child of children.get(ino) ?? [])
      found.push({ path: `${path}/${child.name}`, ino: child.ino });
    children.delete(ino); // a folder has one place; a torn table could else lead round and round
  }
  return found.slice(1);
}

/** What stands at a path of the base; it may have changed since, as any folder. */
async function inBase(base: string, path: string): Promise<FileFacts | undefined> {
  try {
    const { mode, size } = await lstat(join(base, path));
    return describe(mode, size);
  } catch (error) {
    if (leadsNowhere(error)) return undefined;
    throw storageError(error, `look at ${join(base, path)}`);
  }
}

type FileFacts = Pick<Change, "kind" | "mode" | "sizeBytes">;

function describe(mode: number, size: number): FileFacts {
  const kind = kindOf(mode);
  return {
    kind,
    mode: (mode & 0o7777).toString(8).padStart(4, "0"),
    sizeBytes: kind === "file" || kind === "symlink" ? size : 0,
  };
}

function kindOf(mode: number): FileKind {
  switch (mode & 0o170_000) {
    case 0o100_000:
      return "file";
    case 0o040_000:
      return "directory";
    case 0o120_000:
      return "symlink";
    default:
      return "other";
  }
}
