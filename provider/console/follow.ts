/** Follows a serial console log that a VMM writes, from its first byte on. */

import { access, type FileHandle, open, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { stripVTControlCharacters } from "node:util";

import { systemCodeOf } from "../errors.js";

/** What was read at one time. */
export interface ConsoleChunk {
  /** Whole lines, without their line ends. */
  readonly lines: readonly string[];
  /** The unfinished last line by now; `""` when there is none. */
  readonly tail: string;
}

/** How to follow; the defaults suit a console. */
export interface FollowOptions {
  /** Ends the following; what the file holds by then is still yielded. */
  readonly signal: AbortSignal;
  /** Time between two looks, in milliseconds; 10 by default. */
  readonly pollMilliseconds?: number;
  /** A longer line is cut into several of this many bytes; 4096 by default. */
  readonly maxLineBytes?: number;
}

const READ_BYTES = 64 * 1024;
// No inotify: a serial port writes each character by itself, and an event for each would keep a processor busy that the guest needs.
const POLL_MILLISECONDS = 10;
const LINE_FEED = 0x0a;
// A guest must not be able to play on the person's terminal: no control character but the tab is left.
// oxlint-disable-next-line no-control-regex
const CONTROL_CHARACTERS = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f]/g;

/** The text of console bytes: invalid UTF-8 replaced, terminal escapes and control characters removed. */
export function consoleText(bytes: Uint8Array): string {
  return stripVTControlCharacters(Buffer.from(bytes).toString("utf8")).replace(CONTROL_CHARACTERS, "");
}

/**
 * Yields what the file at `path` holds and what is appended to it, until `signal` aborts. The file need not exist yet
 * (its folder must); a truncated or replaced file is read again from its start.
 */
export async function* followConsole(path: string, options: FollowOptions): AsyncGenerator<ConsoleChunk> {
  await access(dirname(path));
  const reader = new ConsoleReader(path, options.maxLineBytes ?? 4096);
  try {
    for (;;) {
      const last = options.signal.aborted;
      for (;;) {
        const chunk = await reader.read();
        if (chunk === undefined) break;
        yield chunk;
      }
      if (last) return;
      await pause(options.pollMilliseconds ?? POLL_MILLISECONDS, options.signal);
    }
  } finally {
    await reader.close();
  }
}

/** The last `count` lines of a console log, an unfinished one included; none when there is no such file. */
export async function lastConsoleLines(path: string, count: number): Promise<string[]> {
  const aborted = AbortSignal.abort();
  let lines: string[] = [];
  let tail = "";
  for await (const chunk of followConsole(path, { signal: aborted })) {
    lines = [...lines, ...chunk.lines].slice(-count);
    tail = chunk.tail;
  }
  return (tail === "" ? lines : [...lines, tail]).slice(-count);
}

/** Reads on in one file, by offset and inode. */
class ConsoleReader {
  #file: FileHandle | undefined;
  #inode = 0n;
  #offset = 0;
  #pending: Buffer = Buffer.alloc(0);
  readonly #buffer = Buffer.alloc(READ_BYTES);

  constructor(
    readonly path: string,
    readonly maxLineBytes: number,
  ) {}

  /** The next piece, or undefined when there is nothing new. */
  async read(): Promise<ConsoleChunk | undefined> {
    const restarted = await this.#openAgainIfReplaced();
    if (this.#file === undefined) return undefined;
    const { bytesRead } = await this.#file.read(this.#buffer, 0, READ_BYTES, this.#offset);
    if (bytesRead === 0) return restarted ? { lines: [], tail: "" } : undefined;
    this.#offset += bytesRead;
    return this.#split(Buffer.concat([this.#pending, this.#buffer.subarray(0, bytesRead)]));
  }

  async close(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
  }

  /** Whether a text that was shown as the unfinished line is no longer there. */
  async #openAgainIfReplaced(): Promise<boolean> {
    let status;
    try {
      status = await stat(this.path, { bigint: true });
    } catch (error) {
      if (systemCodeOf(error) === "ENOENT") return false; // not made yet, or being replaced
      throw error;
    }
    if (this.#file !== undefined && status.ino === this.#inode && status.size >= this.#offset) return false;
    await this.close();
    const hadTail = this.#pending.length > 0;
    this.#pending = Buffer.alloc(0);
    this.#offset = 0;
    this.#file = await open(this.path, "r");
    this.#inode = (await this.#file.stat({ bigint: true })).ino;
    return hadTail;
  }

  #split(bytes: Buffer): ConsoleChunk {
    const lines: string[] = [];
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(LINE_FEED, start);
      const length = (end === -1 ? bytes.length : end) - start;
      if (length > this.maxLineBytes) {
        lines.push(consoleText(bytes.subarray(start, start + this.maxLineBytes)));
        start += this.maxLineBytes;
      } else if (end === -1) {
        this.#pending = bytes.subarray(start);
        return { lines, tail: consoleText(this.#pending) };
      } else {
        lines.push(consoleText(bytes.subarray(start, end)));
        start = end + 1;
      }
    }
  }
}

/** Waits for the time or the abort. */
async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  try {
    await delay(milliseconds, undefined, { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
