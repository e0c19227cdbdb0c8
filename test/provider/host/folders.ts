/** Temporary folders and small file systems that are gone after the test. */

import { execFileSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { onTestFinished } from "vitest";

/** A new folder, mode 0700. */
export async function temporaryFolder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "microvm-host-"));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** Whether this user may mount; with the reason as the tests' names carry it. */
export const mayMount = canMount();

/** Mounts a tmpfs on a folder until the test is over. `options` as of tmpfs(5): `size=1m`, `ro`. */
export function mountTmpfs(path: string, options: string): void {
  execFileSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", path]);
  onTestFinished(() => {
    execFileSync("umount", ["-l", path]);
  });
}

/** Makes a mounted tmpfs read-only. */
export function remountReadOnly(path: string): void {
  execFileSync("mount", ["-o", "remount,ro", path]);
}

function canMount(): boolean {
  if (process.getuid?.() !== 0) return false;
  try {
    execFileSync("unshare", ["--mount", "true"], { stdio: "ignore" });
    return true;
  } catch {
    return false; // a container without CAP_SYS_ADMIN
  }
}
