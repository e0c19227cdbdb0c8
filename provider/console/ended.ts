/** Whether a guest has ended by its own kernel's words: one that panicked or halted leaves a VMM behind that says "running". */

import { open } from "node:fs/promises";

import { systemCodeOf } from "../errors.js";
import { consoleText } from "./follow.js";
import { splitLine } from "./lines.js";

/** How much of the log's end is read: the trace that follows a panic has some KiB. */
const TAIL_BYTES = 64 * 1024;

// kernel/panic.c (both lines of a panic) and kernel/reboot.c; KERN_EMERG, so no loglevel hides them.
const LAST_WORDS =
  /^(?:(?:---\[ end )?Kernel panic - not syncing|reboot: (?:System halted|Power down|Power off not available: System halted instead))/;

/** One of these is in the log of every guest that has ended. */
const MARKS = ["Kernel panic - not syncing", "reboot: "];

/** Without time stamps the trace between the two lines of a panic may be anyone's: only what ends it tells. */
const VERY_LAST_WORDS =
  /^(?:---\[ end Kernel panic - not syncing|reboot: (?:System halted|Power down|Power off not available: System halted instead))/;

/** What there is of a time stamp of which the rest is still being written. */
const CUT_STAMP = /^\[[ \d.]*\]?[[ TC\d\]]*$/;

/**
 * Whether the console of the last start ends with a panic, a halt or a power-off. Reads the end of the log only.
 *
 * @param consoleLog Absolute path; one that is not there tells of no end.
 */
export async function hasGuestEnded(consoleLog: string): Promise<boolean> {
  return tellsOfEnd(await lastLines(consoleLog));
}

/**
 * Whether console lines end so. After its last words the kernel may still print a trace, user space prints nothing any more: a
 * later line of user space says that the words were only quoted, as by a shown log of an earlier boot.
 */
export function tellsOfEnd(lines: readonly string[]): boolean {
  const whole = CUT_STAMP.test(lines.at(-1) ?? "") ? lines.slice(0, -1) : lines;
  const parts = whole.filter((line) => line.trim() !== "").map(splitLine);
  if (!parts.some(({ kernel }) => kernel !== undefined))
    return VERY_LAST_WORDS.test(parts.at(-1)?.user ?? "");
  const lastOfUser = parts.findLastIndex(({ kernel }) => kernel === undefined);
  return parts.slice(lastOfUser + 1).some(({ kernel = "" }) => LAST_WORDS.test(kernel));
}

async function lastLines(path: string): Promise<string[]> {
  let handle;
  try {
    handle = await open(path, "r");
  } catch (error) {
    if (systemCodeOf(error) === "ENOENT") return []; // never started
    throw error;
  }
  try {
    const { size } = await handle.stat();
    const start = Math.max(0, size - TAIL_BYTES);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(TAIL_BYTES), 0, TAIL_BYTES, start);
    // Most guests run: whole lines are made only where there is something to read in them.
    if (!MARKS.some((mark) => buffer.includes(mark))) return [];
    const lines = buffer.subarray(0, bytesRead).toString("latin1").split("\n");
    // Cut in its middle, the first line may look like anything.
    return (start === 0 ? lines : lines.slice(1)).map((line) => consoleText(Buffer.from(line, "latin1")));
  } finally {
    await handle.close();
  }
}
