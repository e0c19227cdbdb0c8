/** `microvm doctor`: what this host can run, and what stands in the way. */

import { resolve } from "node:path";

import { type Check, diagnose } from "../preflight/diagnosis.js";
import type { CommandContext } from "./microvm.js";
import { parseNfsRoot } from "./nfs-root.js";
import { tableLines } from "./table.js";

/** What is looked at beside the host. */
export interface DoctorOptions {
  /** Path of a kernel image. */
  readonly kernel?: string;
  /** `HOST:PORT:PATH` or `HOST:PORT+MOUNTPORT:PATH`. */
  readonly nfs?: string;
  readonly json: boolean;
}

/**
 * Prints what was found, one line each, or as JSON.
 *
 * @returns 0 when nothing failed, with warnings or without; else 1.
 * @throws MicroVmError `invalid-input` for an NFS root that is not named as it should be.
 */
export async function runDoctor(
  { stateDirectory, print }: CommandContext,
  { kernel, nfs, json }: DoctorOptions,
): Promise<number> {
  const checks = await diagnose({
    stateDirectory: resolve(stateDirectory),
    ...(kernel === undefined ? {} : { kernel: resolve(kernel) }),
    ...(nfs === undefined ? {} : { nfs: parseNfsRoot(nfs, "--nfs") }),
  });
  const failed = checks.filter(({ status }) => status === "failure").length;
  if (json) print(JSON.stringify({ healthy: failed === 0, checks }, undefined, 2));
  else reportLines(checks).forEach(print);
  return failed === 0 ? 0 : 1;
}

function reportLines(checks: readonly Check[]): string[] {
  const count = (status: Check["status"]): number => checks.filter((check) => check.status === status).length;
  return [
    ...tableLines(checks.map(({ status, subject, text }) => [status, subject, text])),
    "",
    `pass: ${count("pass")}, warning: ${count("warning")}, failure: ${count("failure")}`,
  ];
}
