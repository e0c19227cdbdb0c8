/** Why a boot failed, in words. */

import { statfs } from "node:fs/promises";
import { dirname } from "node:path";

import { lastConsoleLines } from "../../console/follow.js";
import { type ErrorCode, MicroVmError } from "../../errors.js";
import { isAbsent } from "../../host/storage.js";

/** How many lines of the console a failure shows. */
export const SHOWN_LINES = 20;
/** How many are looked at: the registers and the call trace of a panic fill more than what is shown. */
const READ_LINES = 200;
const PANIC = "Kernel panic - not syncing";

/** The logs of one start, absolute paths. */
export interface Logs {
  readonly consoleLog: string;
  readonly vmmLog: string;
}

/** The parts of a report; texts are clauses or sentences without their full stop. */
export interface Failure {
  readonly code: ErrorCode;
  readonly what: string;
  readonly remedy?: string;
  readonly input?: string;
  /** Whether what the VMM itself printed belongs to it. */
  readonly withVmmLog?: boolean;
}

/** The error for a failed boot: cause, remedy, the last lines of the console. */
export async function bootError(failure: Failure, logs: Logs): Promise<MicroVmError> {
  const sentences = [failure.what, failure.remedy].filter((text) => text !== undefined).map(sentence);
  const folder = dirname(logs.consoleLog);
  const isFull = await hasRunFull(folder);
  if (isFull) {
    const why = `the file system of ${folder} has run full, so that what the guest prints is lost; free some space on it`;
    sentences.unshift(sentence(why));
  }
  const blocks = [sentences.join(" ")];
  if (failure.withVmmLog === true) {
    const said = (await lastConsoleLines(logs.vmmLog, SHOWN_LINES)).filter((line) => line !== "");
    if (said.length > 0) blocks.push(`What the hypervisor printed:\n${quoted(said)}`);
  }
  const lines = upToPanic(await lastConsoleLines(logs.consoleLog, READ_LINES)).slice(-SHOWN_LINES);
  blocks.push(
    lines.length === 0
      ? "The guest's console is empty."
      : `The last ${lines.length} lines of the guest's console:\n${quoted(lines)}`,
  );
  // Without a console there is no proof, whatever became of the guest.
  const isCause = isFull && failure.code === "boot-timeout";
  return new MicroVmError(isCause ? "state-directory" : failure.code, blocks.join("\n"), {
    input: isCause ? undefined : failure.input,
  });
}

/** Less than this is as good as nothing, in bytes. */
const FULL_BYTES = 16 * 1024;

async function hasRunFull(folder: string): Promise<boolean> {
  try {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize < FULL_BYTES;
  } catch (error) {
    if (isAbsent(error)) return false; // somebody has removed the VM's folder
    throw error;
  }
}

/** What led to a panic tells more than the kernel's call trace behind it. */
function upToPanic(lines: readonly string[]): readonly string[] {
  const panic = lines.findLastIndex((line) => line.includes(PANIC));
  return panic === -1 ? lines : lines.slice(0, panic + 1);
}

function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

function quoted(lines: readonly string[]): string {
  return lines.map((line) => `  | ${line}`).join("\n");
}
