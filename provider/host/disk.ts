/** Stateful disks: sparse raw images with an ext4 file system. */

import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { link, open, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { promisify } from "node:util";

import { MicroVmError, messageOf, shown, systemCodeOf } from "../errors.js";
import type { Notice } from "../notice.js";
import { noticeText } from "../notices.js";
import { ext4Bytes } from "./ext4.js";
import { findByArgument, untilExit } from "./process.js";
import { findProgram } from "./program.js";
import { storageError, syncDirectory } from "./storage.js";

const run = promisify(execFile);

const BYTES_PER_MIB = 1_048_576;

/** Their words are searched. */
const ENGLISH = { env: { ...process.env, LC_ALL: "C" } };

/**
 * Makes a sparse ext4 image, mode 0600. The file appears under its name only when it is complete.
 *
 * @param path Absolute; must not exist.
 * @param sizeMiB From 1 to 16777216.
 * @throws MicroVmError `host-unusable` without mkfs.ext4, `state-directory` when the file is there or the file
 * system is full or read-only.
 */
export async function makeStatefulDisk(path: string, sizeMiB: number): Promise<void> {
  const bytes = bytesOf(sizeMiB);
  const mkfs = mkfsProgram();
  const aside = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    const handle = await open(aside, "wx", 0o600);
    try {
      await handle.truncate(bytes);
      // root_owner: the guest's root, whoever runs this.
      await run(mkfs, ["-q", "-F", "-E", "root_owner=0:0", aside], ENGLISH);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await link(aside, path); // fails when the file is there
    await syncDirectory(dirname(path));
  } catch (error) {
    throw diskError(error, path, sizeMiB);
  } finally {
    await rm(aside, { force: true });
  }
}

/**
 * The path of mkfs.ext4.
 *
 * @throws MicroVmError `host-unusable` when it is not installed.
 */
export function mkfsProgram(): string {
  return findProgram("mkfs.ext4", "install the package e2fsprogs (needed for statefulDiskMiB)");
}

/**
 * Makes the image of a stateful disk larger (sparse). The ext4 in it grows at the guest's next start
 * ({@link growFileSystem}). Idempotent.
 *
 * @throws MicroVmError `invalid-input` when the image is larger already: a disk never shrinks;
 * `state-directory` when there is no image, or it cannot grow.
 */
export async function growDisk(path: string, sizeMiB: number): Promise<void> {
  const bytes = bytesOf(sizeMiB);
  try {
    const handle = await open(path, "r+");
    try {
      const { size } = await handle.stat();
      if (size > bytes) {
        throw new MicroVmError(
          "invalid-input",
          `the disk has ${size / BYTES_PER_MIB} MiB and cannot shrink to ${sizeMiB} MiB; give at least its size, or replace the VM`,
          { input: "statefulDiskMiB" },
        );
      }
      if (size === bytes) return;
      await handle.truncate(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw storageError(error, `grow the disk ${path} to ${sizeMiB} MiB`);
  }
}

/** How long programs that an earlier start left at work on an image may go on, in seconds. */
const OTHERS_SECONDS = 120;

/**
 * Brings the ext4 of an image to the image's size, when it is smaller: e2fsck(8), then resize2fs(8). An image that holds
 * something else is the guest's own affair; a file system with errors that need a person stays as it is, and the notice says so.
 *
 * @param path Absolute; nobody may be using the image.
 * @throws MicroVmError `host-unusable` without e2fsprogs, `state-directory` when there is no image or something still uses it.
 */
export async function growFileSystem(path: string, notice: Notice): Promise<void> {
  // A killed start leaves its e2fsck or resize2fs at work.
  for (const other of findByArgument(path)) {
    if (await untilExit(other, OTHERS_SECONDS)) continue;
    throw new MicroVmError(
      "state-directory",
      `process ${other.pid} still uses the disk ${path}; end it, then run again`,
    );
  }
  if (!(await isLargerThanItsFileSystem(path))) return;
  const [check, resize] = ["e2fsck", "resize2fs"].map((name) =>
    findProgram(name, "install the package e2fsprogs"),
  );
  if (check === undefined || resize === undefined) throw new Error("two programs were asked for");
  notice(noticeText("file-system-grows", { path }));
  try {
    await run(check, ["-f", "-p", path], ENGLISH).catch((error: unknown) => {
      if (!hasCorrected(error)) throw error;
    });
    await run(resize, [path], ENGLISH);
  } catch (error) {
    if (!isFailedRun(error)) throw storageError(error, `grow the file system in ${path}`);
    const words = `${error.stdout} ${error.stderr}`.replaceAll(/\s+/g, " ").trim();
    notice(noticeText("file-system-kept", { path, words }));
  }
}

async function isLargerThanItsFileSystem(path: string): Promise<boolean> {
  try {
    const handle = await open(path, "r");
    try {
      const held = await ext4Bytes(handle);
      return held !== undefined && held < (await handle.stat()).size;
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw storageError(error, `read the disk ${path}`);
  }
}

/** e2fsck(8): bits 1 and 2 of its exit code say that errors were corrected. */
function hasCorrected(error: unknown): boolean {
  return isFailedRun(error) && (error.code === 1 || error.code === 2 || error.code === 3);
}

/** 16 TiB: the largest file that ext4 holds with blocks of 4 KiB (ext4(5)), and so the largest image on most hosts. */
const MOST_MIB = 16_777_216;

function bytesOf(sizeMiB: number): number {
  if (Number.isInteger(sizeMiB) && sizeMiB >= 1 && sizeMiB <= MOST_MIB) return sizeMiB * BYTES_PER_MIB;
  throw new MicroVmError(
    "invalid-input",
    `expected a whole number of MiB from 1 to ${MOST_MIB}, found ${shown(sizeMiB)}`,
    {
      input: "statefulDiskMiB",
    },
  );
}

/** mkfs.ext4 says "No space left on device" in many ways, some of them only "while writing out". */
function diskError(error: unknown, path: string, sizeMiB: number): unknown {
  const doing = `make the disk ${path} of ${sizeMiB} MiB`;
  if (systemCodeOf(error) === "EEXIST") {
    return new MicroVmError("state-directory", `cannot ${doing}: it is there already`, { cause: error });
  }
  if (!isFailedRun(error)) return storageError(error, doing);
  const words = error.stderr.trim() || messageOf(error);
  const full = /no space left on device/i.test(words) ? "the file system is full; " : "";
  return new MicroVmError("state-directory", `cannot ${doing}: ${full}mkfs.ext4 says: ${words}`, {
    cause: error,
  });
}

interface FailedRun {
  /** Exit code; a word when the program was not run. */
  readonly code: unknown;
  readonly stdout: string;
  readonly stderr: string;
}

function isFailedRun(error: unknown): error is FailedRun {
  return typeof error === "object" && error !== null && "stderr" in error && typeof error.stderr === "string";
}
