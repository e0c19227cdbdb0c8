/** Files that a VM boots from: told by their content, and copied so that a later start boots the same bytes. */

import { createHash, randomBytes } from "node:crypto";
import type { BigIntStats } from "node:fs";
import { constants } from "node:fs";
import { chmod, copyFile, open, rename, rm } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { dirname, isAbsolute } from "node:path";

import type { BootFile } from "../boot/boot.js";
import { MicroVmError, messageOf, shown, systemCodeOf } from "../errors.js";
import { readCachedDigest, writeCachedDigest } from "./digest-cache.js";
import { storageError, syncDirectory } from "./storage.js";

const CHUNK_BYTES = 1_048_576;

/** A file that changes while it is read is read again, so often. */
const MOST_READINGS = 3;

/**
 * A file changed less than this before it was read may change again within the same tick of its time stamps, and
 * look the same: its digest is not remembered. ext4 counts in ticks of 1 to 10 ms; FAT in 2 s.
 */
const SETTLED_MILLISECONDS = 2000;

/** Digests by what tells one content from another; shared by calls at the same time. */
const known = new Map<string, Promise<string>>();

/**
 * SHA-256 of a file's content, 64 hex digits. Remembered in this process by device, inode, size, mtime and ctime,
 * and, when a state directory is given, in its `.cache` as well.
 *
 * @param path Absolute.
 * @param input The input that named the file, for the error.
 * @param stateDirectory Absolute path; it need not exist, and is not made.
 * @throws MicroVmError `file-unusable` when the file is missing, no regular file, unreadable, or changing all the
 * time.
 */
export async function digestOf(path: string, input: string, stateDirectory?: string): Promise<string> {
  const handle = await openRegular(path, input);
  try {
    const stats = await handle.stat({ bigint: true });
    const key = contentKey(stats);
    const settled = isSettled(stats);
    const found = settled ? known.get(key) : undefined;
    if (found !== undefined) return await found;
    const digest = digestThroughCache(handle, path, input, settled ? stateDirectory : undefined);
    if (!settled) return await digest;
    known.set(key, digest);
    try {
      return await digest;
    } catch (error) {
      known.delete(key);
      throw error;
    }
  } finally {
    await handle.close();
  }
}

/**
 * Copies a boot file (sharing blocks where the file system can) and makes sure that the copy is what was planned.
 * The target, mode 0600, appears only when it is complete and right; one that is there is replaced.
 *
 * @throws MicroVmError `file-unusable` when the content is not the planned one, `state-directory` when there is
 * no room.
 */
export async function copyIn(source: BootFile, target: string, input: string): Promise<void> {
  const handle = await openRegular(source.path, input); // says what is wrong with the source, if anything
  await handle.close();
  const aside = `${target}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    await copyFile(source.path, aside, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
    await chmod(aside, 0o600);
    const found = await syncedDigest(aside); // of the copy: these bytes boot, whatever becomes of the source
    if (found !== source.sha256) {
      throw new MicroVmError(
        "file-unusable",
        `${source.path} has changed since the preview: planned was SHA-256 ${source.sha256}, found ${found}; run again to plan with the new content`,
        { input },
      );
    }
    await rename(aside, target);
    await syncDirectory(dirname(target));
  } catch (error) {
    await rm(aside, { force: true });
    throw storageError(error, `copy ${source.path} to ${target}`);
  }
}

async function digestThroughCache(
  handle: FileHandle,
  path: string,
  input: string,
  stateDirectory: string | undefined,
): Promise<string> {
  for (let reading = 0; reading < MOST_READINGS; reading++) {
    const before = contentKey(await handle.stat({ bigint: true }));
    const cached = stateDirectory && (await readCachedDigest(stateDirectory, path, before));
    if (cached !== undefined && cached !== "") return cached;
    const digest = await hash(handle, path, input);
    const after = contentKey(await handle.stat({ bigint: true }));
    if (before !== after) continue;
    if (stateDirectory !== undefined) await writeCachedDigest(stateDirectory, path, after, digest);
    return digest;
  }
  throw new MicroVmError(
    "file-unusable",
    `${path} is being written; wait until it is complete, then run again`,
    {
      input,
    },
  );
}

async function syncedDigest(path: string): Promise<string> {
  const handle = await open(path, "r+");
  try {
    await handle.sync();
    return await hash(handle, path, undefined);
  } finally {
    await handle.close();
  }
}

async function hash(handle: FileHandle, path: string, input: string | undefined): Promise<string> {
  const sha256 = createHash("sha256");
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  try {
    for (let position = 0; ;) {
      const { bytesRead } = await handle.read(chunk, 0, CHUNK_BYTES, position);
      if (bytesRead === 0) return sha256.digest("hex");
      sha256.update(chunk.subarray(0, bytesRead));
      position += bytesRead;
    }
  } catch (error) {
    throw input === undefined ? error : fileError(error, path, input);
  }
}

async function openRegular(path: string, input: string): Promise<FileHandle> {
  if (!isAbsolute(path)) {
    throw new MicroVmError("file-unusable", `expected an absolute path, found ${shown(path)}`, { input });
  }
  let handle: FileHandle;
  try {
    // O_NONBLOCK: to open a FIFO would otherwise wait for a writer.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw fileError(error, path, input);
  }
  try {
    if ((await handle.stat()).isFile()) return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
  await handle.close();
  throw new MicroVmError("file-unusable", `${path} is no regular file; give the path of a file`, { input });
}

function fileError(error: unknown, path: string, input: string): MicroVmError {
  const details = { input, cause: error };
  switch (systemCodeOf(error)) {
    case "ENOENT":
    case "ENOTDIR":
      return new MicroVmError("file-unusable", `there is no file ${path}; correct the path`, details);
    case "EACCES":
    case "EPERM":
      return new MicroVmError(
        "file-unusable",
        `this user may not read ${path}; make it readable (sudo chmod a+r ${path}) or give a readable copy`,
        details,
      );
    case undefined:
    default:
      return new MicroVmError("file-unusable", `cannot read ${path}: ${messageOf(error)}`, details);
  }
}

/** What is the same only for the same content: a rewrite changes ctime, and a replaced file the inode. */
function contentKey({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(":");
}

/** ctime alone: it moves with every change of the content, and nobody can set it. */
function isSettled({ ctimeMs }: BigIntStats): boolean {
  return Date.now() - Number(ctimeMs) >= SETTLED_MILLISECONDS;
}
