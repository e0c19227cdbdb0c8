/** The programs that build a kernel: whether they are there, and how one is run. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { open, readFile } from "node:fs/promises";

import { MicroVmError } from "../errors.js";
import { findProgram } from "../host/program.js";

/** A program, or a file as a path, and the Debian package that brings it. */
export interface Tool {
  readonly name: string;
  readonly package: string;
}

/** What a build takes. */
export const buildTools: readonly Tool[] = [
  { name: "gcc", package: "gcc" },
  { name: "make", package: "make" },
  { name: "flex", package: "flex" },
  { name: "bison", package: "bison" },
  { name: "bc", package: "bc" },
  { name: "tar", package: "tar" },
  { name: "xz", package: "xz-utils" },
  { name: "/usr/include/stdio.h", package: "libc6-dev" },
];

/** @throws MicroVmError `host-unusable` that names all of the tools that are not there. */
export function assertTools(tools: readonly Tool[]): void {
  const missing = tools.filter((tool) => !isThere(tool));
  if (missing.length === 0) return;
  const packages = missing.map((tool) => tool.package).join(" ");
  throw new MicroVmError(
    "host-unusable",
    `building a kernel takes ${missing.map(({ name }) => name).join(", ")}, which this host has not. Install them (Debian and Ubuntu: apt-get install ${packages})`,
  );
}

function isThere({ name, package: packageName }: Tool): boolean {
  if (name.startsWith("/usr/include/")) return existsSync(name);
  try {
    findProgram(name, `install the package ${packageName}`);
    return true;
  } catch (error) {
    if (error instanceof MicroVmError) return false;
    throw error;
  }
}

/** How a program is run. */
export interface StepOptions {
  readonly cwd: string;
  /** Absolute path of the file that gets all it prints; written anew. */
  readonly log: string;
  /** Ends it, and what it has started. */
  readonly signal: AbortSignal;
  /** Variables beside this process' own. */
  readonly env?: NodeJS.ProcessEnv;
  /** The open file of the build's lock: while the program works, the lock is held, even if this process is killed. */
  readonly lock: number;
}

const SHOWN_LINES = 20;

/**
 * Runs a program to its end.
 *
 * @returns What it printed.
 * @throws MicroVmError `kernel-build` with its last lines when it fails; the signal's reason when that was aborted.
 */
export async function runStep(
  program: string,
  args: readonly string[],
  { cwd, log, signal, env, lock }: StepOptions,
): Promise<string> {
  signal.throwIfAborted();
  const file = await open(log, "w", 0o644);
  try {
    const child = spawn(findProgram(program, "install it"), args, {
      cwd,
      stdio: ["ignore", file.fd, file.fd, lock],
      env: { ...process.env, LC_ALL: "C", ...env },
      // A process group of its own, so that its compilers end with it.
      detached: true,
    });
    const end = (): void => {
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, "SIGTERM");
    };
    signal.addEventListener("abort", end);
    try {
      await once(child, "exit");
    } finally {
      signal.removeEventListener("abort", end);
    }
    signal.throwIfAborted();
    const printed = await readFile(log, "utf8");
    if (child.exitCode === 0) return printed;
    const how = child.signalCode === null ? `exit code ${child.exitCode}` : `signal ${child.signalCode}`;
    const last = printed.trimEnd().split("\n").slice(-SHOWN_LINES).join("\n  ");
    throw new MicroVmError(
      "kernel-build",
      `${program} ${args.at(-1) ?? ""} failed (${how}). Its last lines:\n  ${last}`,
    );
  } finally {
    await file.close();
  }
}
