/** Ending a VM's guest in an orderly way, and its VMM in any case. */

import { hasGuestEnded } from "../../console/ended.js";
import { MicroVmError } from "../../errors.js";
import { noticeText } from "../../notices.js";
import { endProcess, isAlive, type ProcessIdentity, untilExit } from "../../host/process.js";
import type { VmRecord } from "../../host/record.js";
import { removeSockets } from "../../host/runtime-directory.js";
import type { Work } from "../backend.js";
import { endVmm, vmmsOf, vmmsOfInstance } from "./start.js";
import type { Vmm, VmmControl } from "./vmm.js";

const QUIT_SECONDS = 5;
const POLL_SECONDS = 0.5;
const BUTTON_INTERVAL_SECONDS = 2;

/** The VM to power off; it may have lost its record. */
export type PoweredVm = Pick<VmRecord, "vmName" | "controlSocket" | "vmm">;

/** How it is powered off. */
export interface PowerOff {
  readonly shutdownTimeoutSeconds: number;
  /** Absolute path of the console log of the last start. */
  readonly consoleLog: string;
}

/**
 * Power button, `shutdownTimeoutSeconds` of patience, then the VMM's `quit`, then SIGKILL. A paused guest is resumed first. Once the
 * engine has ended, patience ends. What is promised is every file that the guest has closed on its NFS root.
 */
export async function powerOff(vmm: Vmm, record: PoweredVm, how: PowerOff, work: Work): Promise<void> {
  const { shutdownTimeoutSeconds, consoleLog } = how;
  for (const identity of vmmsOf(record)) {
    const control = await connectIfPossible(vmm, record);
    if (control === undefined) continue; // no orderly way is left: endVmm ends it
    try {
      if (!(await hasGuestEnded(consoleLog)) && (await askToPowerOff(control))) {
        work.notice(noticeText("powering-off", { vm: record.vmName, seconds: shutdownTimeoutSeconds }));
        if (await untilOff(control, identity, how, work.signal)) continue;
        if (!(await hasGuestEnded(consoleLog)))
          work.notice(noticeText("power-off-forced", { vm: record.vmName }));
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
export async function connectIfPossible(
  vmm: Vmm,
  { controlSocket }: PoweredVm,
): Promise<VmmControl | undefined> {
  try {
    return await vmm.connect(controlSocket);
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

/**
 * Presses the button again now and then: a guest that is still starting does not hear the first time. A guest that has halted may
 * leave its VMM behind.
 */
async function untilOff(
  control: VmmControl,
  identity: ProcessIdentity,
  { shutdownTimeoutSeconds: seconds, consoleLog }: PowerOff,
  signal: AbortSignal,
): Promise<boolean> {
  for (let waited = 0; waited < seconds && !signal.aborted; waited += POLL_SECONDS) {
    if (await untilExit(identity, Math.min(POLL_SECONDS, seconds - waited))) return true;
    if (await hasGuestEnded(consoleLog)) break;
    if ((waited + POLL_SECONDS) % BUTTON_INTERVAL_SECONDS === 0) await control.pressPowerButton();
  }
  return !isAlive(identity);
}

/** Ends what may be left of an instance of which there is no record any more. */
export async function endStrays(instance: string, controlSocket: string): Promise<void> {
  for (const identity of vmmsOfInstance(instance)) await endProcess(identity, 1);
  await removeSockets(controlSocket);
}
