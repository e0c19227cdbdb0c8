/**
 * Stack traces while a resource is made. Pulumi takes four of them for every property, each through the source maps of
 * ts-node, to name promises that leak: two thirds of the time that a program with many MicroVms takes.
 */

/** Pulumi's own switch: who sets it wants to read the traces. */
const ARE_WANTED = Boolean(process.env["PULUMI_DEBUG_PROMISE_LEAKS"]);

/** Node's own limit. */
const LEAST_FRAMES = 10;

/** No stack trace is taken until the returned function is called. */
export function pauseTraces(): () => void {
  const limit = Error.stackTraceLimit;
  if (!ARE_WANTED) Error.stackTraceLimit = 0;
  return () => {
    Error.stackTraceLimit = limit;
  };
}

/** Gives an error that was thrown meanwhile the trace it lacks: the callers are still on the stack. */
export function withTrace(error: unknown): unknown {
  if (error instanceof Error) {
    Error.stackTraceLimit = Math.max(Error.stackTraceLimit, LEAST_FRAMES);
    Error.captureStackTrace(error, withTrace);
  }
  return error;
}
