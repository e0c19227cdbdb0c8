/** Whether a file is still what it was. */

import { stat } from "node:fs/promises";
import { systemCodeOf } from "../../errors.js";

/**
 * Size, times and inode of a file: what changes when its content does. Taken before the file is read, a change while
 * it is read shows the next time. `undefined` where no regular file is there.
 */
export async function stampOf(path: string): Promise<string | undefined> {
  try {
    const stats = await stat(path);
    const parts = [stats.size, stats.mtimeMs, stats.ctimeMs, stats.dev, stats.ino];
    return stats.isFile() ? parts.join(" ") : undefined;
  } catch (error) {
    const code = systemCodeOf(error);
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
}
