/** Files that a VM boots from: told by their content, and copied so that a later start boots the same bytes. */

import type { BootFile } from "../boot/boot.js";

/**
 * SHA-256 of a file's content, 64 hex digits. Remembered in this process by device, inode, size, mtime and ctime, and, when a state
 * directory is given, in its `.cache` as well.
 *
 * @param path Absolute.
 * @param input The input that named the file, for the error.
 * @param stateDirectory Absolute path; it need not exist, and is not made.
 * @throws MicroVmError `file-unusable` when the file is missing, no regular file, unreadable, or changing all the time.
 */
export async function digestOf(path: string, input: string, stateDirectory?: string): Promise<string> {
  throw new Error("not written yet", { cause: [path, input, stateDirectory] });
}

/**
 * Copies a boot file (sharing blocks where the file system can) and makes sure that the copy is what was planned.
 * The target appears only when it is complete and right; one that is there is replaced.
 *
 * @throws MicroVmError `file-unusable` when the content is not the planned one, `state-directory` when there is no room.
 */
export async function copyIn(source: BootFile, target: string, input: string): Promise<void> {
  throw new Error("not written yet", { cause: [source, target, input] });
}
