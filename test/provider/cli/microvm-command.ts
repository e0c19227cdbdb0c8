/** Runs the program `microvm` as a person would. */

import { execFile } from "node:child_process";
import { join } from "node:path";

const PROGRAM = join(__dirname, "../../../provider/cli/microvm.ts");

/** How a run ended. */
export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs one command line, with other environment variables where they are given. */
export function runMicrovm(words: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  const args = ["--import", "tsx", PROGRAM, ...words];
  return new Promise((resolve) => {
    execFile(process.execPath, args, { env: { ...process.env, ...env } }, (error, stdout, stderr) => {
      resolve({ status: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}
