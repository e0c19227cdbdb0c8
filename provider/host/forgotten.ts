/** Giving a VM up without touching it: the way out when its host is gone for good. */

import { randomBytes } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { dirname } from "node:path";

import { MicroVmError } from "../errors.js";
import type { Notice } from "../notice.js";
import { noticeText } from "../notices.js";
import { moveToLost } from "./lost.js";
import { forgottenMarker, vmDirectory } from "./paths.js";
import { findByArgument, isAlive } from "./process.js";
import type { ProcessIdentity } from "./process.js";
import { readRecord } from "./record.js";
import type { VmRecord } from "./record.js";
import { isThere, replaceFile, storageError, syncDirectory } from "./storage.js";

/**
 * Leaves a tombstone, so that read, update and delete take the VM as gone, and moves a folder of that name to
 * `STATE/.lost`. Its process is not ended; the notice says so.
 *
 * @throws MicroVmError `state-directory`
 */
export async function forget(stateDirectory: string, vmName: string, notice: Notice): Promise<void> {
  const marker = forgottenMarker(stateDirectory, vmName);
  try {
    await mkdir(dirname(marker), { recursive: true, mode: 0o700 });
    await replaceFile(marker, `${new Date().toISOString()}\n`);
  } catch (error) {
    throw storageError(error, `write ${marker}`);
  }
  if (!(await isThere(vmDirectory(stateDirectory, vmName)))) {
    notice(noticeText("forgotten-elsewhere", { vm: vmName }));
    return;
  }
  const record = await recordIfReadable(stateDirectory, vmName);
  const processes = runningProcesses(stateDirectory, vmName, record);
  // A folder whose record is torn names no instance: any unused name keeps it apart.
  const instance = record?.instance ?? randomBytes(8).toString("hex");
  const lost = await moveToLost(stateDirectory, vmName, instance);
  notice(noticeText("forgotten", { vm: vmName, folder: lost ?? "gone" }));
  for (const { pid } of processes) {
    notice(noticeText("still-runs", { vm: vmName, pid }));
  }
}

/** Whether the VM was forgotten and no VM has taken its name since. */
export async function isForgotten(stateDirectory: string, vmName: string): Promise<boolean> {
  const marker = forgottenMarker(stateDirectory, vmName);
  try {
    return await isThere(marker);
  } catch (error) {
    throw storageError(error, `look for ${marker}`);
  }
}

/** Removes the tombstone: a VM has taken the name. Idempotent. */
export async function clearForgotten(stateDirectory: string, vmName: string): Promise<void> {
  const marker = forgottenMarker(stateDirectory, vmName);
  if (!(await isForgotten(stateDirectory, vmName))) return;
  await rm(marker, { force: true });
  await syncDirectory(dirname(marker));
}

function runningProcesses(
  stateDirectory: string,
  vmName: string,
  record: VmRecord | undefined,
): ProcessIdentity[] {
  if (record?.vmm !== undefined) return [record.vmm].filter(isAlive);
  return findByArgument(record?.controlSocket ?? `${vmDirectory(stateDirectory, vmName)}/`);
}

async function recordIfReadable(stateDirectory: string, vmName: string): Promise<VmRecord | undefined> {
  try {
    return await readRecord(stateDirectory, vmName);
  } catch (error) {
    // To forget is the way out of a torn record.
    if (error instanceof MicroVmError && error.code === "record-unreadable") return undefined;
    throw error;
  }
}
