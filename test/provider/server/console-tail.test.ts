import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { consoleTail } from "../../../provider/server/console-tail.js";

describe("the end of a console log", () => {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "microvm-console-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  async function tailOf(content: string | Buffer, count: number): Promise<string[]> {
    const path = join(folder, "console.log");
    await writeFile(path, content);
    return await consoleTail(path, count);
  }

  it("is its last lines, an unfinished one included", async () => {
    expect(await tailOf("one\r\ntwo\r\nthree", 2)).toEqual(["two", "three"]);
    expect(await tailOf("one\n\ntwo\n", 9)).toEqual(["one", "", "two"]);
    expect(await tailOf("", 9)).toEqual([]);
    expect(await consoleTail(join(folder, "none"), 9)).toEqual([]);
  });

  it("has no control characters: what a guest could play with on a terminal", async () => {
    expect(await tailOf("\x1b[2J\x1b[31mred\x1b[0m\ttab\x07\x00\x7f\x9b end\n", 1)).toEqual(["red\ttab end"]);
  });

  it("of a log of any size, in lines of any length, is bounded", async () => {
    const long = await tailOf(Buffer.alloc(5 * 1024 * 1024, "x"), 9);
    expect(long.map((line) => line.length)).toEqual([2000]);
    const many = await tailOf(`${"line\n".repeat(1_000_000)}end\n`, 3);
    expect(many).toEqual(["line", "line", "end"]);
    expect(await tailOf(Buffer.from([0xff, 0x41, 0x0a]), 1)).toEqual(["\ufffdA"]);
  });
});
