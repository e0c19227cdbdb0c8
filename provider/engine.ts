/** The Pulumi engine as this process sees it: when it dies, what is in hand is undone and the process ends. */

import { fstatSync } from "node:fs";
import { MicroVmError } from "./errors.js";

const ended = new AbortController();
let inHand = 0;
let watching = false;

/**
 * Runs work that must be undone when the engine dies. A killed engine leaves its provider process behind, whose
 * standard input then reaches end of file: the signal aborts, the work undoes itself, and the process exits.
 */
export async function whileEngineLives<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  watchEngine();
  inHand += 1;
  try {
    return await work(ended.signal);
  } finally {
    inHand -= 1;
    exitIfOver();
  }
}

/** Ends this process when the engine does; without effect outside a provider process. */
export function watchEngine(): void {
  if (watching || !isProviderProcess()) return;
  watching = true;
  process.stdin.once("end", engineDied).once("error", engineDied).resume();
}

function engineDied(): void {
  ended.abort(
    new MicroVmError("interrupted", "the Pulumi engine ended while this was under way; it was undone"),
  );
  exitIfOver();
}

function exitIfOver(): void {
  if (inHand === 0 && ended.signal.aborted) process.exit(1);
}

/** Whether this is @pulumi/pulumi's dynamic provider host, whose standard input is a pipe from the engine. */
function isProviderProcess(): boolean {
  if (!/[\\/]cmd[\\/]dynamic-provider/.test(process.argv[1] ?? "")) return false;
  try {
    const input = fstatSync(0);
    return input.isFIFO() || input.isSocket();
  } catch {
    // No standard input at all: nothing to watch.
    return false;
  }
}
