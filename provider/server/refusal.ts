/** Why a request is not done, as an answer over HTTP. */

import type { z } from "zod";
import { type ErrorCode, MicroVmError, messageOf, withCode } from "../errors.js";
import type { errorResponse } from "./wire.js";

/** An answer that is not 2xx. */
export class Refusal extends Error {
  override readonly name = "Refusal";

  /**
   * @param statusCode 400 to 599.
   * @param message For a person: what was expected, what was found, what to do.
   * @param code Kind of failure, where it is one of the package's.
   */
  constructor(
    readonly statusCode: number,
    message: string,
    readonly code?: ErrorCode,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** What the caller can put right is the caller's; all else is the server's, 500. */
const statusCodes: { readonly [Code in ErrorCode]?: number } = {
  "invalid-input": 400,
  "not-supported": 400,
  "file-unusable": 400,
  "kernel-unusable": 400,
  "root-unusable": 400,
  "nfs-unreachable": 400,
  "name-taken": 409,
  "create-in-progress": 409,
  "port-taken": 409,
  "address-taken": 409,
  "guest-agent": 502,
  interrupted: 503,
};

/** The status of a failure of the package's. */
export function statusCodeOf(code: ErrorCode): number {
  return statusCodes[code] ?? 500;
}

/** For a request that comes, or is undone, while the server stops. */
export const STOPPING = "the server is being stopped; what was begun is undone, ask again when it is back";

/** What a caller is told of an error. */
export function refusalOf(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof MicroVmError) {
    const { code, message } = error;
    if (code === "interrupted") return new Refusal(503, STOPPING, code, { cause: error });
    return new Refusal(statusCodeOf(code), withCode(message, code), code, { cause: error });
  }
  const statusCode = httpStatusOf(error);
  if (statusCode !== undefined) return new Refusal(statusCode, messageOf(error), undefined, { cause: error });
  // Whatever it says may be of no concern to the caller: the log has it.
  const text = "unexpected: the server failed in a way that it does not expect; its log has the details";
  return new Refusal(500, withCode(text, "internal-error"), "internal-error", { cause: error });
}

/** The body of an answer that is not 2xx. */
export function errorBody({ message, code }: Refusal): z.output<typeof errorResponse> {
  return { error: { message, ...(code === undefined ? {} : { code }) } };
}

/** What the HTTP library itself refuses: a body too large, or that is no JSON. */
function httpStatusOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !("statusCode" in error)) return undefined;
  const { statusCode } = error;
  return typeof statusCode === "number" && statusCode >= 400 && statusCode < 500 ? statusCode : undefined;
}
