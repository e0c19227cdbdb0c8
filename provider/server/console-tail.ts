/** The end of a guest's console log. The guest may have written any number of bytes of any kind; only the last are read. */

import { open } from "node:fs/promises";
import { stripVTControlCharacters } from "node:util";
import { systemCodeOf } from "../errors.js";

const READ_BYTES = 128 * 1024;

/** More of one line no page shows. */
const LINE_CHARACTERS = 2000;

/**
 * The last lines of a console log, an unfinished one included, without control characters; none when there is no such file.
 *
 * @param count How many at most.
 */
export async function consoleTail(path: string, count: number): Promise<string[]> {
  const text = await lastBytes(path);
  const lines = text
    .split("\n")
    .map((line) => stripVTControlCharacters(line).replaceAll(CONTROLS, "").slice(0, LINE_CHARACTERS));
  if (lines.at(-1) === "") lines.pop();
  return lines.slice(-count);
}

/** What is left of control characters without the escape sequences of terminals, but the tabulator. */
const CONTROLS = /[^\P{Cc}\t]/gu;

async function lastBytes(path: string): Promise<string> {
  let file;
  try {
    file = await open(path);
  } catch (error) {
    if (systemCodeOf(error) === "ENOENT") return "";
    throw error;
  }
  try {
    const { size } = await file.stat();
    const from = Math.max(0, size - READ_BYTES);
    const { bytesRead, buffer } = await file.read(Buffer.alloc(READ_BYTES), 0, READ_BYTES, from);
    const text = buffer.toString("utf8", 0, bytesRead);
    // The first line is cut, unless it is the log's own first one.
    return from === 0 ? text : text.slice(text.indexOf("\n") + 1);
  } finally {
    await file.close();
  }
}
