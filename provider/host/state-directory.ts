/** The folder in which this host keeps its VMs, and who this host is. */

import { createHmac, randomBytes } from "node:crypto";
import { access, constants, link, mkdir, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, isAbsolute, join } from "node:path";

import { MicroVmError, shown, systemCodeOf } from "../errors.js";
import { absolute } from "./paths.js";
import { isThere, readIfThere, storageError, syncDirectory, writeNewFile } from "./storage.js";

/** A state directory that has been found usable. */
export interface StateDirectory {
  /** Absolute path. */
  readonly path: string;
  /** First line of its `host-id` file: 32 random hex digits. */
  readonly hostId: string;
}

/** Folder of this package in the XDG folders. */
const FOLDER = "pulumi-microvm";

const HOST_ID = /^[0-9a-f]{32}$/;

/** `$XDG_STATE_HOME/pulumi-microvm`, else `~/.local/state/pulumi-microvm` (XDG Base Directory Specification). */
export function defaultStateDirectory(env: NodeJS.ProcessEnv = process.env): string {
  const base = env["XDG_STATE_HOME"];
  // The specification: a path in these variables that is not absolute is to be ignored.
  if (base !== undefined && isAbsolute(base)) return join(base, FOLDER);
  return join(env["HOME"] || homedir(), ".local", "state", FOLDER);
}

/**
 * Opens a state directory, made (mode 0700) when it is not there, with the host id in it.
 *
 * @throws MicroVmError `state-directory` when the path is not absolute, the folder is another user's, group or
 * others can write to it, it cannot be written (its file system is read-only or full), or its `host-id` is torn;
 * `other-host` as {@link readHostId}.
 */
export async function openStateDirectory(path: string): Promise<StateDirectory> {
  absolute(path);
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    await assertUsable(path);
    return { path, hostId: (await readHostId(path)) ?? (await makeHostId(path)) };
  } catch (error) {
    if (systemCodeOf(error) === "EEXIST") throw noFolder(path, error);
    throw storageError(error, `use the state directory ${path}`);
  }
}

/**
 * Finds out whether a state directory could be opened, without making or changing anything.
 *
 * @returns Whether it is there.
 * @throws MicroVmError as {@link openStateDirectory}; where it is not there, when it could not be made.
 */
export async function inspectStateDirectory(path: string): Promise<boolean> {
  try {
    if (await isThere(absolute(path))) {
      await assertUsable(path);
      await readHostId(path);
      return true;
    }
    let parent = dirname(path);
    while (!(await isThere(parent))) parent = dirname(parent);
    await access(parent, constants.W_OK | constants.X_OK);
    return false;
  } catch (error) {
    throw storageError(error, `use the state directory ${path}`);
  }
}

/**
 * The host id of a state directory, without making or changing anything.
 *
 * @returns undefined when the folder or its `host-id` is not there.
 * @throws MicroVmError `state-directory` when it is there and cannot be read; `other-host` when the folder was made
 * on another machine, as in a home that several machines mount: the process ids in its records mean nothing here.
 */
export async function readHostId(path: string): Promise<string | undefined> {
  const file = join(absolute(path), "host-id");
  const content = await readIfThere(file);
  if (content === undefined) return undefined;
  const [hostId = "", mark = ""] = content.trimEnd().split("\n");
  if (!HOST_ID.test(hostId)) {
    throw new MicroVmError(
      "state-directory",
      `${file} must hold 32 hex digits, found ${shown(hostId)}; restore it, or remove it if no VM is left here`,
    );
  }
  const here = await machineMark(hostId);
  if (mark === "" || here === "" || mark === here) return hostId;
  throw new MicroVmError(
    "other-host",
    `the state directory ${path} was made on another machine, and VMs cannot be told to run or not from here; ` +
      `set XDG_STATE_HOME to a folder that this machine has for itself (or, if this machine replaces that one, remove the second line of ${file})`,
  );
}

/** link(2) fails when the name is there: of two processes at once, one gives the id and both read it. */
async function makeHostId(directory: string): Promise<string> {
  const file = join(directory, "host-id");
  const aside = `${file}.${randomBytes(6).toString("hex")}.tmp`;
  const made = randomBytes(16).toString("hex");
  try {
    await writeNewFile(aside, `${made}\n${await machineMark(made)}\n`);
    await link(aside, file);
    await syncDirectory(directory);
  } catch (error) {
    if (systemCodeOf(error) !== "EEXIST") throw error; // EEXIST: the other process was first
  } finally {
    await rm(aside, { force: true });
  }
  const hostId = await readHostId(directory);
  if (hostId === undefined) {
    throw new MicroVmError("state-directory", `${file} was removed while it was being made; run again`);
  }
  return hostId;
}

/**
 * Tells this machine from others: a keyed hash of its machine id, which itself is not to be shown (machine-id(5)).
 * Empty where there is none, as in most containers.
 */
async function machineMark(hostId: string): Promise<string> {
  const machineId = ((await readIfThere("/etc/machine-id")) ?? "").trim();
  if (!/^[0-9a-f]{32}$/.test(machineId)) return "";
  return createHmac("sha256", machineId).update(hostId).digest("hex").slice(0, 32);
}

async function assertUsable(path: string): Promise<void> {
  await assertPrivate(path);
  await access(path, constants.R_OK | constants.W_OK | constants.X_OK);
}

function noFolder(path: string, cause?: unknown): MicroVmError {
  return new MicroVmError(
    "state-directory",
    `${path} is no folder; remove it, or set XDG_STATE_HOME to another folder`,
    { cause },
  );
}

async function assertPrivate(path: string): Promise<void> {
  const found = await stat(path);
  if (!found.isDirectory()) throw noFolder(path);
  const { uid, mode } = found;
  if (uid !== process.getuid?.()) {
    throw new MicroVmError(
      "state-directory",
      `${path} belongs to user ${uid}, and this is user ${process.getuid?.()}; set XDG_STATE_HOME to a folder of your own`,
    );
  }
  if ((mode & 0o022) !== 0) {
    throw new MicroVmError(
      "state-directory",
      `${path} can be written by other users (mode ${(mode & 0o7777).toString(8)}); run: chmod 700 ${path}`,
    );
  }
}
