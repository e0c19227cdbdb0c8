/** Processes by identity: a pid alone may be another program's by now. */

import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

import { MicroVmError, systemCodeOf } from "../errors.js";

/** A process that cannot be mistaken for a later one of the same pid. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Start time in clock ticks since boot: field 22 of /proc/PID/stat (proc_pid_stat(5)). */
  readonly startTime: string;
  /** /proc/sys/kernel/random/boot_id when it ran. */
  readonly bootId: string;
}

const POLL_MILLISECONDS = 20;

/** The identity of the process that has this pid now; undefined when there is none, or only a zombie. */
export function identify(pid: number): ProcessIdentity | undefined {
  const startTime = startTimeOf(pid);
  return startTime === undefined ? undefined : { pid, startTime, bootId: currentBootId() };
}

/** The identity of the process that runs this. */
export function thisProcess(): ProcessIdentity {
  const identity = identify(process.pid);
  if (identity === undefined) {
    throw new MicroVmError("host-unusable", "/proc does not show this process; mount proc on /proc");
  }
  return identity;
}

/** Whether that very process still runs. A zombie does not; neither does any process of an earlier boot. */
export function isAlive(identity: ProcessIdentity): boolean {
  return identity.bootId === currentBootId() && startTimeOf(identity.pid) === identity.startTime;
}

/** Whether both name the same process. */
export function isSameProcess(a: ProcessIdentity, b: ProcessIdentity): boolean {
  return a.pid === b.pid && a.startTime === b.startTime && a.bootId === b.bootId;
}

/** The ids of all processes that are to be seen, this one among them. */
export function processIds(): number[] {
  return readdirSync("/proc").map(Number).filter(Number.isInteger);
}

/**
 * This user's processes of which one argument contains one of the texts; never this process itself.
 * Finds a VMM whose starter was killed before it could record it.
 *
 * @param texts Each unique to what is looked for, such as the path of a control socket that carries the instance.
 */
export function findByArgument(...texts: readonly string[]): ProcessIdentity[] {
  if (texts.includes("")) throw new Error("findByArgument needs a text");
  const found: ProcessIdentity[] = [];
  for (const pid of processIds()) {
    if (pid === process.pid) continue;
    // The cheaper look first: there may be thousands.
    if (!hasArgument(pid, texts)) continue;
    const identity = identify(pid);
    if (identity === undefined || !hasArgument(pid, texts)) continue; // another's by now
    if (realUserOf(pid) === process.getuid?.() && isAlive(identity)) found.push(identity);
  }
  return found;
}

function hasArgument(pid: number, texts: readonly string[]): boolean {
  const line = readOfProcess(pid, "cmdline");
  if (line === undefined || !texts.some((text) => line.includes(text))) return false;
  return line.split("\0").some((argument) => texts.some((text) => argument.includes(text)));
}

/**
 * Sends a signal to that very process; no effect once it has ended.
 *
 * @returns Whether the signal was sent.
 */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(identity)) return false;
  try {
    return process.kill(identity.pid, signal);
  } catch (error) {
    if (systemCodeOf(error) === "ESRCH") return false; // it ended since the look at /proc
    throw error;
  }
}

/**
 * Waits until that very process has ended.
 *
 * @returns Whether it has ended in time.
 */
export async function untilExit(identity: ProcessIdentity, timeoutSeconds: number): Promise<boolean> {
  const deadline = performance.now() + timeoutSeconds * 1000;
  while (isAlive(identity)) {
    if (performance.now() >= deadline) return false;
    await delay(POLL_MILLISECONDS);
  }
  return true;
}

/**
 * Ends that very process: SIGTERM, and SIGKILL when it has not ended within the grace.
 *
 * @param graceSeconds How long SIGTERM may take; 0 sends SIGKILL at once.
 * @throws MicroVmError `vmm-failed` when it survives SIGKILL for 10 s (it hangs in the kernel).
 */
export async function endProcess(identity: ProcessIdentity, graceSeconds: number): Promise<void> {
  if (graceSeconds > 0) {
    signalProcess(identity, "SIGTERM");
    if (await untilExit(identity, graceSeconds)) return;
  }
  signalProcess(identity, "SIGKILL");
  if (await untilExit(identity, 10)) return;
  throw new MicroVmError(
    "vmm-failed",
    `process ${identity.pid} did not end within 10 s of SIGKILL; see what it waits for in /proc/${identity.pid}/stack`,
  );
}

let bootId: string | undefined;

function currentBootId(): string {
  return (bootId ??= readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim());
}

/**
 * Field 22 of /proc/PID/stat; undefined for a process that is gone, a zombie (Z) or dead (X). One whose first thread alone is a
 * zombie is still there: until the others (field 20) have ended too, it holds on to its ports and taps.
 */
function startTimeOf(pid: number): string | undefined {
  const stat = readOfProcess(pid, "stat");
  // Field 2, the program's name in parentheses, may itself hold blanks and parentheses: count from the last one.
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  const state = fields?.[0];
  const hasEnded = (state === "Z" || state === "X") && !(Number(fields?.[17]) > 1);
  return hasEnded ? undefined : fields?.[19];
}

function realUserOf(pid: number): number | undefined {
  const uid = /^Uid:\s+(\d+)/m.exec(readOfProcess(pid, "status") ?? "")?.[1];
  return uid === undefined ? undefined : Number(uid);
}

/** What /proc/PID has in a file (proc_pid(5)); undefined for a process that is not there, or not for this user to see. */
export function readOfProcess(
  pid: number,
  file: "stat" | "status" | "cmdline" | "environ" | "comm",
): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch (error) {
    if (isHidden(error)) return undefined;
    throw error;
  }
}

/** Whether what was asked of a process cannot be seen: it has ended, or is another user's (a /proc may be mounted with hidepid). */
export function isHidden(error: unknown): boolean {
  return ["ENOENT", "ESRCH", "EACCES", "EPERM"].includes(systemCodeOf(error) ?? "");
}
