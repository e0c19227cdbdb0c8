/** Writing files so that a crash leaves the old content or the new, and saying plainly why one cannot be written. */

import { randomBytes } from "node:crypto";
import { open, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";

import { MicroVmError, messageOf, systemCodeOf } from "../errors.js";

/** What system errors of a file system mean, and what to do about them. */
const MEANINGS: Readonly<Record<string, string>> = {
  ENOSPC: "the file system is full; free some space on it",
  EDQUOT: "the disk quota of this user is used up; free some space",
  EFBIG: "the file is larger than the file system, or this user's limit (ulimit -f), allows",
  EROFS: "the file system is mounted read-only; use one that can be written",
  EACCES: "this user may not; correct the rights of the folder",
  EPERM: "this user may not; correct the rights of the folder",
  ENOTDIR: "a part of this path is a file, not a folder; remove it or choose another folder",
  EIO: "the device reports an I/O error; see dmesg",
};

/**
 * A failed write (or read) in the state directory as the person should read it.
 *
 * @param doing What was tried, such as `"write /path/vm.json"`.
 * @returns A MicroVmError `state-directory`; the error itself when it is one already, or no system error.
 */
export function storageError(error: unknown, doing: string): unknown {
  const code = systemCodeOf(error);
  if (error instanceof MicroVmError || code === undefined) return error;
  const meaning = MEANINGS[code] ?? messageOf(error);
  return new MicroVmError("state-directory", `cannot ${doing}: ${meaning} (${code})`, { cause: error });
}

/** Whether something is simply not there. */
export function isAbsent(error: unknown): boolean {
  return systemCodeOf(error) === "ENOENT";
}

/** Whether a path leads nowhere: nothing is there, or a part of the way is a file. */
export function leadsNowhere(error: unknown): boolean {
  const code = systemCodeOf(error);
  return code === "ENOENT" || code === "ENOTDIR";
}

/** Whether there is something at a path. The system's own error is thrown where that cannot be told. */
export async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (isAbsent(error)) return false;
    throw error;
  }
}

/**
 * {@link isThere}, in the person's words.
 *
 * @throws MicroVmError `state-directory` where it cannot be told.
 */
export async function lookFor(path: string): Promise<boolean> {
  try {
    return await isThere(path);
  } catch (error) {
    throw storageError(error, `look for ${path}`);
  }
}

/**
 * The text of a file; undefined where there is none.
 *
 * @throws MicroVmError `state-directory` where it cannot be read.
 */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw storageError(error, `read ${path}`);
  }
}

/** Makes an empty file, mode 0600, where there is none. Idempotent; fails where its folder is not there. */
export async function touch(path: string): Promise<void> {
  const handle = await open(path, "a", 0o600);
  await handle.close();
}

/** Whether a write failed for lack of space, told as a system error or as {@link storageError} tells it. */
export function isOutOfSpace(error: unknown): boolean {
  const code = systemCodeOf(error instanceof MicroVmError ? error.cause : error);
  return code === "ENOSPC" || code === "EDQUOT";
}

/** Whether rename(2) met a folder that is not empty: whoever made it was first. */
export function isOccupied(error: unknown): boolean {
  const code = systemCodeOf(error);
  return code === "ENOTEMPTY" || code === "EEXIST";
}

/** Makes renames and new names in a folder last over a power failure (fsync(2), on the folder). */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes a new file, mode 0600, and has it on the disk; fails when the file is there. */
export async function writeNewFile(path: string, content: string): Promise<void> {
  const handle = await open(path, "wx", 0o600);
  try {
    await handle.writeFile(content);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Replaces a file's content in one step: other processes see the old content or the new. */
export async function replaceFile(path: string, content: string): Promise<void> {
  const aside = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    await writeNewFile(aside, content);
    await rename(aside, path);
  } catch (error) {
    await rm(aside, { force: true });
    throw error;
  }
  await syncDirectory(dirname(path));
}
