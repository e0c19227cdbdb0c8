/** Runs a program to its end; what it printed is the result, not an exception. */

import { spawn } from "node:child_process";
import { once } from "node:events";

/** How a program is run. */
export interface RunOptions {
  readonly cwd?: string;
  /** The whole environment; this process' own by default. */
  readonly env?: NodeJS.ProcessEnv;
  /** SIGKILL after so many seconds; 600 by default. */
  readonly timeoutSeconds?: number;
  /** Called with each piece of output as it comes. */
  readonly onOutput?: (text: string) => void;
  /** Called with the process id once it runs. */
  readonly onStart?: (pid: number) => void;
}

/** How a program ended. */
export interface RunResult {
  /** Exit code; null when a signal ended it. */
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** stdout and stderr as they came. */
  readonly output: string;
}

/** Runs a program and waits until it has ended and its output is complete. Throws only when it cannot be started. */
export async function runProcess(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const text = { stdout: "", stderr: "", output: "" };
  for (const stream of ["stdout", "stderr"] as const) {
    child[stream].setEncoding("utf8");
    child[stream].on("data", (chunk: string) => {
      text[stream] += chunk;
      text.output += chunk;
      options.onOutput?.(chunk);
    });
  }
  const timer = setTimeout(() => child.kill("SIGKILL"), (options.timeoutSeconds ?? 600) * 1000);
  try {
    if (child.pid !== undefined) options.onStart?.(child.pid);
    await once(child, "close");
  } finally {
    clearTimeout(timer);
  }
  return { exitCode: child.exitCode, signal: child.signalCode, ...text };
}

/** Runs a program that must succeed, and returns its stdout; throws with all its output when it does not. */
export async function mustRun(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const result = await runProcess(command, args, options);
  if (result.exitCode === 0) return result.stdout;
  throw new Error(`${command} ${args.join(" ")}: exit ${result.exitCode ?? result.signal}\n${result.output}`);
}
