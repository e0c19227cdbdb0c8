/** Ending a VM's guest in an orderly way, and its VMM in any case. */

import { hasGuestEnded } from "../../console/ended.js";
import { MicroVmError } from "../../errors.js";
import { noticeText } from "../../notices.js";
import { endProcess } from "../../host/process.js";
import { removeSockets } from "../../host/runtime-directory.js";
import type { Work } from "../backend.js";
import {
  connectTo,
  endGuest,
  type Runs,
  runsOf,
  type Startable,
  untilEnded,
  vmmsOfInstance,
} from "./runs.js";
import type { Vmm, VmmControl } from "./vmm.js";

const QUIT_SECONDS = 5;
const POLL_SECONDS = 0.5;
const BUTTON_INTERVAL_SECONDS = 2;

/** The VM to power off; it may have lost its record. */
export type PoweredVm = Startable & { readonly vmName: string };

/** How it is powered off. */
export interface PowerOff {
  readonly shutdownTimeoutSeconds: number;
  /** Absolute path of the console log of the last start. */
  readonly consoleLog: string;
}

/**
 * Power button and `shutdownTimeoutSeconds` of patience (at 0 neither), then the VMM's `quit`, then SIGKILL. A paused guest is resumed
 * first. Once the engine has ended, patience ends. What is promised is every file that the guest has closed on its NFS root.
 */
export async function powerOff(vmm: Vmm, record: PoweredVm, how: PowerOff, work: Work): Promise<void> {
  const { shutdownTimeoutSeconds, consoleLog } = how;
  for (const runs of await runsOf(vmm, { ...record, phase: undefined })) {
    const control = await connectIfPossible(vmm, record);
    if (control === undefined) continue; // no orderly way is left: endGuest ends it, or says that it cannot
    try {
      const hasTime = shutdownTimeoutSeconds > 0 && !(await hasGuestEnded(consoleLog));
      if (hasTime && (await askToPowerOff(control))) {
        work.notice(noticeText("powering-off", { vm: record.vmName, seconds: shutdownTimeoutSeconds }));
        if (await untilOff(control, runs, how, work.signal)) continue;
        if (!(await hasGuestEnded(consoleLog)))
          work.notice(noticeText("power-off-forced", { vm: record.vmName }));
      }
      if (await runs.isUp()) await control.quit();
      await untilEnded(runs, QUIT_SECONDS);
    } catch (error) {
      // The VMM may end between two requests, and a broken one is ended below all the same.
      if (!(error instanceof MicroVmError && error.code === "vmm-failed")) throw error;
    } finally {
      control.close();
    }
  }
  await endGuest(vmm, record);
}

/** A connection to the record's VMM; undefined when it does not answer (its socket is gone, or it hangs). */
export async function connectIfPossible(vmm: Vmm, record: Startable): Promise<VmmControl | undefined> {
  try {
    return await connectTo(vmm, record);
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
  runs: Runs,
  { shutdownTimeoutSeconds: seconds, consoleLog }: PowerOff,
  signal: AbortSignal,
): Promise<boolean> {
  for (let waited = 0; waited < seconds && !signal.aborted; waited += POLL_SECONDS) {
    if (await untilEnded(runs, Math.min(POLL_SECONDS, seconds - waited))) return true;
    if (await hasGuestEnded(consoleLog)) break;
    if ((waited + POLL_SECONDS) % BUTTON_INTERVAL_SECONDS === 0) await control.pressPowerButton();
  }
  return !(await runs.isUp());
}

/** Ends what may be left of an instance of which there is no record any more. */
export async function endStrays(instance: string, controlSocket: string): Promise<void> {
  for (const identity of vmmsOfInstance(instance)) await endProcess(identity, 1);
  await removeSockets(controlSocket);
}
