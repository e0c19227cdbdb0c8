/**
 * The border to the engine: an error leaves the provider as a message for the person at the terminal, with its code and
 * without a stack trace.
 */

import { type ErrorCode, MicroVmError, messageOf, withCode } from "./errors.js";

/** An error as the engine shows it: `message` ends its first line with the code. */
class ShownError extends MicroVmError {
  constructor(code: ErrorCode, text: string, details: { input?: string; cause?: unknown }) {
    super(code, text, details);
    this.message = withCode(this.message, code);
    // The dynamic provider host prints `${error}: ${error.stack}` for what check, diff, read and delete throw.
    this.stack = this.message;
  }

  override toString(): string {
    return "pulumi-microvm";
  }
}

/** A function of the provider whose errors can be shown as they are: each is a {@link MicroVmError}. */
export function atBorder<Args extends readonly unknown[], Result>(
  work: (...args: Args) => Promise<Result>,
): (...args: Args) => Promise<Result> {
  return async (...args) => {
    try {
      return await work(...args);
    } catch (error) {
      throw shownError(error);
    }
  };
}

function shownError(error: unknown): MicroVmError {
  if (error instanceof MicroVmError) {
    const { code, text, input } = error;
    return new ShownError(code, text, { input, cause: error });
  }
  const place = error instanceof Error ? /\n +(at .*)/.exec(error.stack ?? "")?.[1] : undefined;
  const where = place === undefined ? "" : ` (${place})`;
  const text = `unexpected: ${messageOf(error)}${where}. Please report this`;
  return new ShownError("internal-error", text, { cause: error });
}
