/** What of a VM tells at once, and without asking anybody, that something has happened to it. */

import { readdirSync, statSync } from "node:fs";
import { systemCodeOf } from "../errors.js";
import { isVmName, vmPaths } from "../host/paths.js";
import { isAlive } from "../host/process.js";
import type { VmRecord } from "../host/record.js";

/** Names of the VMs in a state directory, by name; empty when it is not there. */
export function namesIn(stateDirectory: string): string[] {
  try {
    const entries = readdirSync(stateDirectory, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isDirectory() && isVmName(entry.name))
      .map((entry) => entry.name)
      .toSorted();
  } catch (error) {
    if (isAbsent(error)) return [];
    throw error;
  }
}

/**
 * Other than before when the record was written anew, the guest has printed something (its kernel's last words, for one), or the VMM has
 * ended. These are three calls of the system for each VM, synchronous because that is 10 times cheaper than to wait for them.
 *
 * @param record As it was when last read; absent when it is not known.
 */
export function marksOf(stateDirectory: string, vmName: string, record?: VmRecord): string {
  const paths = vmPaths(stateDirectory, vmName);
  const isUp = record?.vmm !== undefined && isAlive(record.vmm);
  return `${markOf(paths.record)} ${markOf(paths.consoleLog)} ${isUp}`;
}

function markOf(path: string): string {
  try {
    const { ino, size, mtimeMs } = statSync(path);
    return `${ino}:${size}:${mtimeMs}`;
  } catch (error) {
    if (isAbsent(error)) return "-";
    throw error;
  }
}

function isAbsent(error: unknown): boolean {
  const code = systemCodeOf(error);
  return code === "ENOENT" || code === "ENOTDIR";
}
