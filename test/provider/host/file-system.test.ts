import { execFileSync, spawn } from "node:child_process";
import { open, readFile, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it, onTestFinished } from "vitest";

import { growDisk, growFileSystem, makeStatefulDisk } from "../../../provider/host/disk.js";
import { ext4Bytes } from "../../../provider/host/ext4.js";
import { findProgram } from "../../../provider/host/program.js";
import { temporaryFolder } from "./folders.js";

const BYTES_PER_MIB = 1_048_576;
const PROGRAMS = ["mkfs.ext4", "e2fsck", "resize2fs", "debugfs"];
const missing = PROGRAMS.filter((name) => !isThere(name));
const title = `the file system of a grown disk${missing.length === 0 ? "" : ` (skipped: no ${missing.join(", ")})`}`;

describe.skipIf(missing.length > 0)(title, () => {
  it("grows to the disk, is sound, and keeps its content", async () => {
    const { path, notices, notice } = await disk(16);
    const content = "kept\n".repeat(10_000);
    await putIn(path, "/file", content);
    await growDisk(path, 600);
    expect(await sizeOf(path)).toBe(16 * BYTES_PER_MIB);
    await growFileSystem(path, notice);
    expect(await sizeOf(path)).toBe(600 * BYTES_PER_MIB);
    expect(run("debugfs", "-R", "cat /file", path)).toBe(content);
    run("e2fsck", "-f", "-n", path);
    expect(notices).toEqual([`growing the file system of the stateful disk ${path}`]);
    expect((await stat(path)).blocks * 512).toBeLessThan(100 * BYTES_PER_MIB);
  });

  it("is left alone when it has the disk's size", async () => {
    const { path, notices, notice } = await disk(16);
    const before = await readFile(path);
    await growFileSystem(path, notice);
    expect((await readFile(path)).equals(before)).toBe(true);
    expect(notices).toEqual([]);
  });

  it("is left alone when it is none of ours", async () => {
    const { path, notices, notice } = await disk(16);
    const content = Buffer.alloc(16 * BYTES_PER_MIB, "not a file system ");
    await writeFile(path, content);
    await growDisk(path, 32);
    await growFileSystem(path, notice);
    expect((await readFile(path)).subarray(0, content.length).equals(content)).toBe(true);
    await truncate(path, 100);
    await growFileSystem(path, notice);
    expect(notices).toEqual([]);
  });

  it("keeps its size where e2fsck cannot mend it, and says so", async () => {
    const { path, notices, notice } = await disk(16);
    const handle = await open(path, "r+");
    await handle.write(Buffer.alloc(2 * BYTES_PER_MIB, 0xff), 0, 2 * BYTES_PER_MIB, 4096); // group descriptors and inodes
    await handle.close();
    await growDisk(path, 32);
    await growFileSystem(path, notice);
    expect(await sizeOf(path)).toBe(16 * BYTES_PER_MIB);
    expect(notices.at(-1)).toMatch(/keeps its size: .*(?:RUN fsck MANUALLY|corrupt)/i);
  });

  it("is grown only once what a killed start has left at work on it has ended", async () => {
    const { path, notice } = await disk(16);
    await growDisk(path, 32);
    const left = spawn("sh", ["-c", "read line", "resize2fs", path], { stdio: ["pipe", "ignore", "ignore"] });
    onTestFinished(() => {
      left.kill("SIGKILL");
    });
    let isGrown = false;
    const growing = growFileSystem(path, notice).then(() => (isGrown = true));
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(isGrown).toBe(false);
    expect(await sizeOf(path)).toBe(16 * BYTES_PER_MIB);
    left.stdin?.end();
    await growing;
    expect(await sizeOf(path)).toBe(32 * BYTES_PER_MIB);
  });

  it("that is not there is an error that says so", async () => {
    const path = join(await temporaryFolder(), "none.img");
    await expect(growFileSystem(path, () => undefined)).rejects.toMatchObject({ code: "state-directory" });
  });
});

async function disk(sizeMiB: number) {
  const path = join(await temporaryFolder(), "stateful.img");
  await makeStatefulDisk(path, sizeMiB);
  const notices: string[] = [];
  return { path, notices, notice: (line: string) => notices.push(line) };
}

async function sizeOf(path: string): Promise<number | undefined> {
  const handle = await open(path, "r");
  try {
    return await ext4Bytes(handle);
  } finally {
    await handle.close();
  }
}

async function putIn(path: string, name: string, content: string): Promise<void> {
  const source = `${path}.source`;
  await writeFile(source, content);
  run("debugfs", "-w", "-R", `write ${source} ${name}`, path);
}

function run(program: string, ...args: string[]): string {
  return execFileSync(findProgram(program, ""), args, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
}

function isThere(program: string): boolean {
  try {
    findProgram(program, "");
    return true;
  } catch {
    return false;
  }
}
