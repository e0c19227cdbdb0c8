/** Follows a serial console log that a VMM writes, from its first byte on. */

import { type FSWatcher, watch } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
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
  /** Longest time between two looks, in milliseconds; 25 by default. inotify usually tells sooner. */
  readonly pollMilliseconds?: number;
  /** A longer line is cut into several of this many bytes; 4096 by default. */
  readonly maxLineBytes?: number;
}

const READ_BYTES = 64 * 1024;
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
  const reader = new ConsoleReader(path, options.maxLineBytes ?? 4096);
  const bell = new Bell(path, options.signal, options.pollMilliseconds ?? 25);
  try {
    for (;;) {
      const last = options.signal.aborted;
      for (;;) {
        const chunk = await reader.read();
        if (chunk === undefined) break;
        yield chunk;
      }
      if (last) return;
      await bell.wait();
    }
  } finally {
    bell.close();
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

  constructor(
    readonly path: string,
    readonly maxLineBytes: number,
  ) {}

  /** The next piece, or undefined when there is nothing new. */
  async read(): Promise<ConsoleChunk | undefined> {
    const restarted = await this.#openAgainIfReplaced();
    if (this.#file === undefined) return undefined;
    const buffer = Buffer.alloc(READ_BYTES);
    const { bytesRead } = await this.#file.read(buffer, 0, READ_BYTES, this.#offset);
    if (bytesRead === 0) return restarted ? { lines: [], tail: "" } : undefined;
    this.#offset += bytesRead;
    return this.#split(Buffer.concat([this.#pending, buffer.subarray(0, bytesRead)]));
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

/** Rings when the file may have changed: on inotify, after the poll time, and on the abort. */
class Bell {
  #rung = false;
  #ring: (() => void) | undefined;
  #watcher: FSWatcher | undefined;

  constructor(
    path: string,
    readonly signal: AbortSignal,
    readonly pollMilliseconds: number,
  ) {
    const name = basename(path);
    try {
      // The folder is watched, since the file may not exist yet and may be replaced.
      this.#watcher = watch(dirname(path), { persistent: false }, (_event, changed) => {
        if (changed === null || changed === name) this.#onRing();
      });
      this.#watcher.on("error", () => this.#watcher?.close()); // the folder went away: the poll remains
    } catch (error) {
      const code = systemCodeOf(error);
      // Out of inotify watches: the poll alone is slower by 25 ms at most.
      if (code !== "ENOSPC" && code !== "EMFILE") throw error;
    }
    signal.addEventListener("abort", this.#onRing);
  }

  async wait(): Promise<void> {
    if (!this.#rung && !this.signal.aborted) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, this.pollMilliseconds);
        this.#ring = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.#rung = false;
    this.#ring = undefined;
  }

  close(): void {
    this.signal.removeEventListener("abort", this.#onRing);
    this.#watcher?.close();
  }

  readonly #onRing = (): void => {
    this.#rung = true;
    this.#ring?.();
  };
}
