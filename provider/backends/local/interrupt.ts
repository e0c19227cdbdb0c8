/** The end of the engine, as the life of a VM sees it. */

import { MicroVmError } from "../../errors.js";

/** @throws MicroVmError `interrupted` when the engine has ended. */
export function stopIfInterrupted(signal: AbortSignal): void {
  if (signal.aborted) throw interrupted();
}

/** What a piece of work ends with when the engine has ended. */
export function interrupted(): MicroVmError {
  return new MicroVmError("interrupted", "the Pulumi engine ended before the VM was ready");
}
