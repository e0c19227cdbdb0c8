/** Where the lab keeps what is slow to make: kernels and the Pulumi CLI, shared by all clones of a user. */

import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";

/** `$MICROVM_LAB_CACHE`, else `pulumi-microvm-lab` under `$XDG_CACHE_HOME` or `~/.cache`. */
export function cacheFolder(): string {
  const cache = process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
  return process.env["MICROVM_LAB_CACHE"] ?? join(cache, "pulumi-microvm-lab");
}

/**
 * A folder of the cache, made by `make` when it is not there. It appears complete or not at all; of several
 * processes that make it at once, the first one's stays.
 */
export async function cached(name: string, make: (folder: string) => Promise<void>): Promise<string> {
  const folder = join(cacheFolder(), name);
  if (existsSync(folder)) return folder;
  await mkdir(dirname(folder), { recursive: true });
  const unfinished = await mkdtemp(`${folder}.`);
  try {
    await make(unfinished);
    await rename(unfinished, folder);
  } catch (error) {
    await rm(unfinished, { recursive: true, force: true });
    // Another process was faster.
    if (!existsSync(folder)) throw error;
  }
  return folder;
}
