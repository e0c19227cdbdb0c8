/** Evidence from the guest itself: what it says its root is. A server's status is none. */

import { setTimeout as delay } from "node:timers/promises";

import { MicroVmError, messageOf } from "../../errors.js";
import { stopIfInterrupted } from "../local/interrupt.js";
import type { ArrakisApi } from "./api.js";
import { differenceOf, type RootClaim, rootMount } from "./root-claim.js";

/** What came out: `silent` when the guest could not be asked. */
export type Evidence =
  | { readonly kind: "proved" }
  | { readonly kind: "wrong"; readonly difference: string }
  | { readonly kind: "silent"; readonly reason: string };

/** How the guest is asked. */
export interface Question {
  readonly vmName: string;
  readonly claim: RootClaim;
  /** When to give up, on the clock of `performance.now()`. The guest is asked once at least. */
  readonly deadline: number;
  readonly signal: AbortSignal;
}

const COMMAND = "cat /proc/mounts";
/** Between two questions: the guest's command server may not be up yet. */
const POLL_MILLISECONDS = 500;
/** A question may take this long whatever is left, in seconds. */
const LEAST_SECONDS = 5;
const MOST_SECONDS = 40;

/** Asks the guest for its mounts until it answers. */
export async function proveRoot(api: ArrakisApi, question: Question): Promise<Evidence> {
  const { vmName, claim, deadline, signal } = question;
  for (;;) {
    const left = (deadline - performance.now()) / 1000;
    const seconds = Math.min(MOST_SECONDS, Math.max(LEAST_SECONDS, left));
    const answer = await mountsOf(api, vmName, seconds, signal);
    stopIfInterrupted(signal);
    if (typeof answer === "string") {
      const root = rootMount(answer);
      if (root === undefined) return { kind: "silent", reason: `its answer to "${COMMAND}" names no root` };
      const difference = differenceOf(claim, root);
      return difference === undefined ? { kind: "proved" } : { kind: "wrong", difference };
    }
    if (performance.now() + POLL_MILLISECONDS >= deadline) return { kind: "silent", reason: answer.reason };
    await delay(POLL_MILLISECONDS);
  }
}

async function mountsOf(
  api: ArrakisApi,
  vmName: string,
  seconds: number,
  signal: AbortSignal,
): Promise<string | { readonly reason: string }> {
  try {
    const { output = "", error } = await api.command(vmName, COMMAND, seconds, signal);
    return error ? { reason: `"${COMMAND}" failed in it: ${error} ${output}`.trim() } : output;
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    return { reason: messageOf(error) };
  }
}
