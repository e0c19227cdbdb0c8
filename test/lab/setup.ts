/**
 * Finds the real parts before tests that need them: what `test/lab/run` has prepared, or what an earlier run left in the cache. A
 * part that is not there is left out, and the tests that need it are skipped by name.
 */

import { existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { cacheFolder } from "./cache.js";
import { stockKernel } from "./debian-kernel.js";
import { mustRun } from "./run-process.js";

const REPOSITORY = resolve(__dirname, "../..");

/** Called by vitest once before all tests of the project `vm`; what it sets reaches every worker. */
export default async function setup(): Promise<void> {
  await provide("MICROVM_LAB_KERNEL", stockKernel);
  provideCached("MICROVM_LAB_NFS_KERNEL", "nfs-root-kernel/bzImage");
  provideCached("MICROVM_LAB_PULUMI", "pulumi");
  // The engine runs what is built.
  if (await isBuildOld()) await mustRun("npm", ["run", "--silent", "build"], { cwd: REPOSITORY });
}

async function isBuildOld(): Promise<boolean> {
  const built = join(REPOSITORY, "dist/provider/index.js");
  if (!existsSync(built)) return true;
  const { mtimeMs } = await stat(built);
  for (const folder of ["sdk", "provider"]) {
    for (const name of await readdir(join(REPOSITORY, folder), { recursive: true })) {
      if ((await stat(join(REPOSITORY, folder, name))).mtimeMs > mtimeMs) return true;
    }
  }
  return false;
}

async function provide(name: string, find: () => Promise<string>): Promise<void> {
  if (process.env[name]) return;
  try {
    process.env[name] = await find();
  } catch (error) {
    console.warn(`${name} is not set: ${String(error)}`);
  }
}

function provideCached(name: string, path: string): void {
  const file = join(cacheFolder(), path);
  if (!process.env[name] && existsSync(file)) process.env[name] = file;
}
