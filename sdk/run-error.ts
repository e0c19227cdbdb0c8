/** Errors as a Pulumi program shows them. */

import * as pulumi from "@pulumi/pulumi";

import { MicroVmError, withCode } from "../provider/errors.js";

/** An error that is shown without a stack trace, with its code, where it is one of ours; else the error itself. */
export function shownError(error: unknown): unknown {
  if (!(error instanceof MicroVmError)) return error;
  const shown = new pulumi.RunError(withCode(error.message, error.code));
  // Pulumi shows none, and colours it nevertheless: half a minute of Node 20's processor where the text names a path in node_modules.
  delete shown.stack;
  return shown;
}
