import { appendFile, mkdtemp, rename, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { consoleText, followConsole, lastConsoleLines } from "../../../provider/console/follow.js";

let folder: string;
let log: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "microvm-follow-"));
  log = join(folder, "console.log");
});
afterEach(async () => await rm(folder, { recursive: true, force: true }));

/** Collects what is yielded in the background, until stopped. */
function collect(options: { maxLineBytes?: number } = {}) {
  const stop = new AbortController();
  const lines: string[] = [];
  let tail = "";
  const times: number[] = [];
  const done = (async () => {
    for await (const chunk of followConsole(log, { ...options, signal: stop.signal })) {
      lines.push(...chunk.lines);
      times.push(...chunk.lines.map(() => performance.now()));
      tail = chunk.tail;
    }
  })();
  return {
    lines,
    times,
    tail: () => tail,
    until: async (count: number) =>
      await expect.poll(() => lines.length, { interval: 2 }).toBeGreaterThanOrEqual(count),
    stop: async () => {
      stop.abort();
      await done;
    },
  };
}

describe("followConsole", () => {
  it("begins before the file exists and yields its first byte", async () => {
    const seen = collect();
    await writeFile(log, "first\r\nsec");
    await seen.until(1);
    expect(seen.tail()).toBe("sec");
    await appendFile(log, "ond\n");
    await seen.until(2);
    await seen.stop();
    expect(seen.lines).toEqual(["first", "second"]);
    expect(seen.tail()).toBe("");
  });

  it("sees a line within 100 ms", async () => {
    await writeFile(log, "");
    const seen = collect();
    const written: number[] = [];
    for (let index = 1; index <= 10; index++) {
      written.push(performance.now());
      await appendFile(log, `line ${index}\n`);
      await seen.until(index);
    }
    await seen.stop();
    const delays = written.map((at, index) => (seen.times[index] ?? Infinity) - at);
    expect(delays.filter((milliseconds) => milliseconds < 100).length).toBeGreaterThanOrEqual(5);
  });

  it("reads a truncated file again from its start", async () => {
    await writeFile(log, "an old boot\nof the guest\nunfinished");
    const seen = collect();
    await seen.until(2);
    await truncate(log, 0);
    await expect.poll(() => seen.tail()).toBe("");
    await appendFile(log, "new\n");
    await seen.until(3);
    await seen.stop();
    expect(seen.lines).toEqual(["an old boot", "of the guest", "new"]);
  });

  it("follows a file that is replaced by another one", async () => {
    await writeFile(log, "one\n");
    const seen = collect();
    await seen.until(1);
    await writeFile(`${log}.new`, "two\nthree\n");
    await rename(`${log}.new`, log);
    await seen.until(3);
    await seen.stop();
    expect(seen.lines).toEqual(["one", "two", "three"]);
  });

  it("yields what the file holds when it is stopped", async () => {
    await writeFile(log, "a\nb\n");
    const seen = collect();
    await seen.stop();
    expect(seen.lines).toEqual(["a", "b"]);
  });

  it("cuts lines that are too long, so that a guest cannot fill the memory", async () => {
    await writeFile(log, `${"x".repeat(25)}\nend\n`);
    const seen = collect({ maxLineBytes: 10 });
    await seen.stop();
    expect(seen.lines).toEqual(["x".repeat(10), "x".repeat(10), "xxxxx", "end"]);
  });

  it("reads a megabyte of output whole", async () => {
    const text = Array.from({ length: 20_000 }, (_, index) => `line ${index} of the guest's console, ü`);
    await writeFile(log, `${text.join("\n")}\n`);
    const seen = collect();
    await seen.stop();
    expect(seen.lines).toEqual(text);
  });

  it("fails when the folder does not exist", async () => {
    const { signal } = new AbortController();
    const following = followConsole(join(folder, "none", "console.log"), { signal });
    await expect(following.next()).rejects.toThrow(/ENOENT/);
  });
});

describe("consoleText", () => {
  it("removes what could play on a terminal", () => {
    expect(consoleText(Buffer.from("\u001b[1;32m[  OK  ]\u001b[0m Started\u0007\r"))).toBe(
      "[  OK  ] Started",
    );
    expect(consoleText(Buffer.from("\u001b]0;title\u0007a\tb\u0000c"))).toBe("a\tbc");
  });

  it("takes invalid UTF-8", () => {
    expect(consoleText(Uint8Array.of(0x61, 0xff, 0x62))).toBe("a\ufffdb");
  });
});

describe("lastConsoleLines", () => {
  it("gives the last lines, an unfinished one included", async () => {
    await writeFile(log, "1\n2\n3\nlogin: ");
    expect(await lastConsoleLines(log, 3)).toEqual(["2", "3", "login: "]);
  });

  it("gives none for a file that does not exist", async () => {
    expect(await lastConsoleLines(log, 20)).toEqual([]);
  });
});
