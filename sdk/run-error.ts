/** Errors as a Pulumi program shows them. */

import * as pulumi from "@pulumi/pulumi";

import { MicroVmError, withCode } from "../provider/errors.js";

/** An error that is shown without a stack trace, with its code, where it is one of ours; else the error itself. */
export function shownError(error: unknown): unknown {
  return error instanceof MicroVmError ? new pulumi.RunError(withCode(error.message, error.code)) : error;
}
