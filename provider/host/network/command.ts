/** The system's own programs for its network: ip(8), ss(8) and nft(8). */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { text as textOf } from "node:stream/consumers";

import { MicroVmError, messageOf } from "../../errors.js";
import { findProgram } from "../program.js";
import { heldLock } from "./lock.js";

/** A program, and the Debian package that has it. */
const PACKAGES = { ip: "iproute2", ss: "iproute2", nft: "nftables" } as const;

export type NetworkProgram = keyof typeof PACKAGES;

const TIMEOUT_MILLISECONDS = 20_000;

/** CAP_NET_ADMIN of capabilities(7), by its number in linux/capability.h. */
const CAP_NET_ADMIN = 12n;

/** A program that ended with an error; `output` is what it printed. */
export class CommandError extends MicroVmError {
  constructor(
    text: string,
    readonly output: string,
    cause: unknown,
  ) {
    super("host-unusable", text, { cause });
  }
}

/**
 * The path of a program.
 *
 * @throws MicroVmError `host-unusable` when it is not installed.
 */
export function networkProgram(name: NetworkProgram, env: NodeJS.ProcessEnv = process.env): string {
  return findProgram(
    name,
    `install the package ${PACKAGES[name]} (Debian and Ubuntu: apt-get install ${PACKAGES[name]})`,
    env,
  );
}

/** Whether a program is installed. */
export function isInstalled(name: NetworkProgram): boolean {
  try {
    networkProgram(name);
    return true;
  } catch (error) {
    if (error instanceof MicroVmError) return false;
    throw error;
  }
}

/**
 * Runs a program. It has the lock of the network as well, where this process has it.
 *
 * @param input What it reads from its standard input.
 * @returns What it prints.
 * @throws CommandError (`host-unusable`) with its own words when it fails.
 */
export async function run(name: NetworkProgram, args: readonly string[], input = ""): Promise<string> {
  const lock = heldLock();
  const child = spawn(networkProgram(name), args, {
    stdio: ["pipe", "pipe", "pipe", ...(lock === undefined ? [] : [lock])],
    timeout: TIMEOUT_MILLISECONDS,
    env: { ...process.env, LC_ALL: "C" },
  });
  const { stdout, stderr } = child;
  if (stdout === null || stderr === null) throw new Error("pipes were asked for");
  // EPIPE: it ended without reading; then its exit code tells.
  child.stdin?.on("error", () => {});
  child.stdin?.end(input);
  try {
    const [printed, words] = await Promise.all([textOf(stdout), textOf(stderr), once(child, "close")]);
    if (child.exitCode === 0) return printed;
    const output = words.trim();
    const end = child.signalCode === null ? `exit code ${child.exitCode}` : `signal ${child.signalCode}`;
    throw failureOf(name, args, output, end);
  } catch (error) {
    if (error instanceof CommandError) throw error;
    throw failureOf(name, args, "", messageOf(error), error);
  }
}

/**
 * The error of a program that has failed.
 *
 * @param output What it printed to its standard error.
 * @param end How it ended, shown where it printed nothing.
 */
export function failureOf(
  name: NetworkProgram,
  args: readonly string[],
  output: string,
  end: string,
  cause?: unknown,
): CommandError {
  const shown = output === "" ? end : output.replaceAll(/\s*\n\s*/g, "; ");
  return new CommandError(`${name} ${args.join(" ")} failed: ${shown}`, output, cause);
}

/** Whether this process may change the network: whether it has CAP_NET_ADMIN (capabilities(7)). */
export function mayAdminister(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
  return effective !== undefined && ((BigInt(`0x${effective}`) >> CAP_NET_ADMIN) & 1n) === 1n;
}

/**
 * Makes sure of the right to change the network.
 *
 * @throws MicroVmError `host-unusable`
 */
export function assertMayAdminister(): void {
  if (mayAdminister()) return;
  throw new MicroVmError(
    "host-unusable",
    "expected the right to change this host's network (CAP_NET_ADMIN), which making a bridge, a tap and its rules takes, and this process has it not. " +
      'Run pulumi as root, or use backend: { type: "qemu" }, whose user network takes no rights',
    { input: "backend" },
  );
}
