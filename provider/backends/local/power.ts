/** Ending a VM's guest in an orderly way, and its VMM in any case. */

import { rm } from "node:fs/promises";

import { MicroVmError } from "../../errors.js";
import { endProcess, isAlive, type ProcessIdentity, untilExit } from "../../host/process.js";
import type { VmRecord } from "../../host/record.js";
import type { Work } from "../backend.js";
import { endVmm, vmmsOf } from "./start.js";
import type { Vmm, VmmControl } from "./vmm.js";

const QUIT_SECONDS = 5;
const POLL_SECONDS = 0.5;
const BUTTON_INTERVAL_SECONDS = 2;

/**
 * Power button, `shutdownTimeoutSeconds` of patience, then the VMM's `quit`, then SIGKILL. A paused guest is resumed first. Once the
 * engine has ended, patience ends. What is promised is every file that the guest has closed on its NFS root.
 */
export async function powerOff(
  vmm: Vmm,
  record: VmRecord,
  shutdownTimeoutSeconds: number,
  work: Work,
): Promise<void> {
  for (const identity of vmmsOf(record)) {
    const control = await connectIfPossible(vmm, record);
    if (control === undefined) continue; // no orderly way is left: endVmm ends it
    try {
      if (await askToPowerOff(control)) {
        work.notice(
          `${record.vmName}: waiting for the guest to power off (at most ${shutdownTimeoutSeconds} s)`,
        );
        if (await untilOff(control, identity, shutdownTimeoutSeconds, work.signal)) continue;
        work.notice(`${record.vmName}: the guest did not power off in time; ending it`);
      }
      if (isAlive(identity)) await control.quit();
      await untilExit(identity, QUIT_SECONDS);
    } catch (error) {
      // The VMM may end between two requests, and a broken one is ended below all the same.
      if (!(error instanceof MicroVmError && error.code === "vmm-failed")) throw error;
    } finally {
      control.close();
    }
  }
  await endVmm(record);
}

/** A connection to the record's VMM; undefined when it does not answer (its socket is gone, or it hangs). */
export async function connectIfPossible(vmm: Vmm, record: VmRecord): Promise<VmmControl | undefined> {
  try {
    return await vmm.connect(record.controlSocket, record.boot);
  } catch (error) {
    if (error instanceof MicroVmError && error.code === "vmm-failed") return undefined;
    throw error;
  }
}

/** Whether there is a guest that can hear the button. */
async function askToPowerOff(control: VmmControl): Promise<boolean> {
  const state = await control.guestState();
  if (state === "unbooted" || state === "ended") return false;
  if (state === "paused") await control.resume();
  await control.pressPowerButton();
  return true;
}

/** Presses the button again now and then: a guest that is still starting does not hear the first time. */
async function untilOff(
  control: VmmControl,
  identity: ProcessIdentity,
  seconds: number,
  signal: AbortSignal,
): Promise<boolean> {
  for (let waited = 0; waited < seconds && !signal.aborted; waited += POLL_SECONDS) {
    if (await untilExit(identity, Math.min(POLL_SECONDS, seconds - waited))) return true;
    if ((waited + POLL_SECONDS) % BUTTON_INTERVAL_SECONDS === 0) await control.pressPowerButton();
  }
  return !isAlive(identity);
}

/** Ends what may be left of a VM of which there is no record any more. */
export async function endStrays(controlSocket: string): Promise<void> {
  for (const identity of vmmsOf({ controlSocket })) await endProcess(identity, 1);
  await rm(controlSocket, { force: true });
}
