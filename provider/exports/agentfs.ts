/** The server of an AgentFS database: `agentfs serve nfs`, one process, NFS and MOUNT on one port, export `/`. */

import { execFile } from "node:child_process";
import { link, mkdir, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { MicroVmError, messageOf } from "../errors.js";
import { findProgram } from "../host/program.js";
import { isAbsent, isOccupied, storageError, syncDirectory } from "../host/storage.js";
import { runInDatabase } from "./agentfs-sdk.js";
import type { AgentFsServing, ServingPlace } from "./record.js";

/** Key of an encrypted database. It reaches the program by its environment alone: what stands on a command line, `ps` shows to all. */
export interface DatabaseKey {
  /** Hex digits. */
  readonly key: string;
  readonly cipher: string;
}

/** How a server process is started. */
export interface ServerProgram {
  readonly file: string;
  readonly args: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

const HINT =
  "install AgentFS (https://github.com/tursodatabase/agentfs), or name the program by `binary` or $AGENTFS";

/** For a run of the program that serves nothing: its help, a new database. */
const RUN_SECONDS = 60;

/**
 * The absolute path of the program.
 *
 * @param binary What the person named; else `$AGENTFS`, else `agentfs` on PATH.
 * @throws MicroVmError `host-unusable`
 */
export function agentFsProgram(binary: string | undefined, env: NodeJS.ProcessEnv = process.env): string {
  return findProgram(binary ?? (env["AGENTFS"] || "agentfs"), HINT, env);
}

const takesKeys = new Map<string, Promise<boolean>>();

/** Whether a release of the program can serve an encrypted database over NFS: 0.6.4 cannot, and says nothing of keys in its help. */
export async function canServeEncrypted(program: string): Promise<boolean> {
  let answer = takesKeys.get(program);
  if (answer === undefined) {
    answer = runAgentFs(program, ["serve", "nfs", "--help"]).then((help) => help.includes("AGENTFS_KEY"));
    takesKeys.set(program, answer);
  }
  return await answer;
}

/** The command of the server. */
export function agentFsServer(
  { program, databasePath }: AgentFsServing,
  { address, port }: ServingPlace,
  key?: DatabaseKey,
): ServerProgram {
  return {
    file: program,
    args: ["serve", "nfs", databasePath, "--bind", address, "--port", String(port)],
    environment: environmentOf(key),
  };
}

function environmentOf(key: DatabaseKey | undefined): Record<string, string> {
  return key === undefined ? {} : { AGENTFS_KEY: key.key, AGENTFS_CIPHER: key.cipher };
}

/**
 * A database with the symbolic links of its folder followed, which need not be there: one database has one path.
 *
 * @throws MicroVmError `state-directory` where that cannot be told.
 */
export async function realDatabasePath(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (!isAbsent(error)) throw storageError(error, `look for ${path}`);
  }
  const folder = dirname(path);
  return folder === path ? path : join(await realDatabasePath(folder), basename(path));
}

/**
 * Whether the database is there.
 *
 * @throws MicroVmError `database-unusable` for what is no file; `state-directory` where that cannot be told.
 */
export async function hasDatabase(path: string): Promise<boolean> {
  try {
    if ((await stat(path)).isFile()) return true;
  } catch (error) {
    if (isAbsent(error)) return false;
    throw storageError(error, `look for ${path}`);
  }
  throw new MicroVmError("database-unusable", `expected an AgentFS database, and ${path} is no file`, {
    input: "databasePath",
  });
}

/**
 * Makes a database that is there fit to be served again; makes one where there is none: in a folder beside it, put in its place when it
 * is whole, so that a killed create leaves a whole database or none. What lies beside a database of SQLite (`-wal`) goes first: without
 * it, the rest is not whole.
 *
 * @param instance Names the folder that it is made in.
 */
export async function ensureDatabase(
  { databasePath, baseDirectory, program }: AgentFsServing,
  instance: string,
  key?: DatabaseKey,
): Promise<void> {
  if (await hasDatabase(databasePath)) return await forgetOrigins(databasePath, key);
  const folder = preparation(databasePath, instance);
  const parent = dirname(databasePath);
  try {
    await mkdir(parent, { recursive: true });
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { mode: 0o700 });
    const base = baseDirectory === undefined ? [] : ["--base", baseDirectory];
    await runAgentFs(program, ["init", ...base, "new"], { cwd: folder, env: environmentOf(key) });
    const made = join(folder, ".agentfs", "new.db");
    await moveIfThere(`${made}-wal`, `${databasePath}-wal`);
    await link(made, databasePath); // fails where another has made one meanwhile
    await syncDirectory(parent);
  } catch (error) {
    if (!isOccupied(error)) throw storageError(error, `make ${databasePath}`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Releases up to 0.6.4 keep from which file of the base a changed one was copied by numbers that they give out anew in each session
 * (`fs_origin`, overlayfs.rs): served again, a database then mixes up its files, and a guest that has booted from it once does not find
 * its init program any more. Without these numbers nothing is lost: they only keep the inode numbers of one session together.
 */
async function forgetOrigins(databasePath: string, key: DatabaseKey | undefined): Promise<void> {
  if (key !== undefined) return; // a release that serves encrypted databases is later than these
  await runInDatabase(databasePath, "fs_origin", "DELETE FROM fs_origin");
}

async function moveIfThere(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (!isAbsent(error)) throw error; // a release may write all into the one file
  }
}

/**
 * Removes what a killed create has left beside the database. Idempotent.
 *
 * @throws MicroVmError `state-directory`
 */
export async function removePreparation(databasePath: string, instance: string): Promise<void> {
  const folder = preparation(databasePath, instance);
  try {
    await rm(folder, { recursive: true, force: true });
  } catch (error) {
    throw storageError(error, `remove ${folder}`);
  }
}

function preparation(databasePath: string, instance: string): string {
  return join(dirname(databasePath), `.new-${instance}`);
}

/**
 * Removes a database that no server has open, with what SQLite keeps beside it. Idempotent.
 *
 * @throws MicroVmError `state-directory`
 */
export async function removeDatabase(databasePath: string): Promise<void> {
  for (const path of [databasePath, `${databasePath}-wal`, `${databasePath}-shm`]) {
    try {
      await rm(path, { force: true });
    } catch (error) {
      throw storageError(error, `remove ${path}`);
    }
  }
}

/**
 * Holds what the server says of its database against what was asked for.
 *
 * @param log What the server has printed since it was started.
 * @throws MicroVmError `database-unusable`, input `baseDirectory`.
 */
export async function assertBase(
  { databasePath, baseDirectory }: AgentFsServing,
  log: string,
): Promise<void> {
  const found = /^Mode: overlay \(base: (.*)\)$/m.exec(log)?.[1];
  if (baseDirectory === undefined || (found === undefined && !log.includes("Mode: direct"))) return;
  if (found !== undefined && (await realDatabasePath(found)) === (await realDatabasePath(baseDirectory)))
    return;
  throw new MicroVmError(
    "database-unusable",
    `the database ${databasePath} ${found === undefined ? "is no overlay" : `is an overlay of ${found}`}, and not one of ${baseDirectory}; ` +
      "give another id (or databasePath), or remove that database",
    { input: "baseDirectory" },
  );
}

/** Runs the program to its end. The error says what it printed, which never holds the key. */
async function runAgentFs(
  program: string,
  args: readonly string[],
  { cwd, env = {} }: { cwd?: string; env?: Readonly<Record<string, string>> } = {},
): Promise<string> {
  const { PATH, HOME } = process.env;
  return await new Promise((resolve, reject) => {
    const options = { cwd, env: { PATH, HOME, ...env }, timeout: RUN_SECONDS * 1000 };
    execFile(program, [...args], options, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      const words = `${stderr}${stdout}`.trim().split("\n").slice(-8).join("\n") || messageOf(error);
      const shown = env["AGENTFS_KEY"] ? words.replaceAll(env["AGENTFS_KEY"], "[secret]") : words;
      const what = `${basename(program)} ${args[0]}`;
      reject(new MicroVmError("nfs-server-failed", `${what} failed: ${shown}`));
    });
  });
}
