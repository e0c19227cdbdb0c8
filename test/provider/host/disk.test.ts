import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { growDisk, makeStatefulDisk } from "../../../provider/host/disk.js";
import { findProgram } from "../../../provider/host/program.js";
import { mayMount, mountTmpfs, remountReadOnly, temporaryFolder } from "./folders.js";

const hasMkfs = has("mkfs.ext4") && has("e2fsck");

function has(program: string): boolean {
  try {
    findProgram(program, "");
    return true;
  } catch {
    return false;
  }
}

describe.skipIf(!hasMkfs)("a stateful disk (needs e2fsprogs)", () => {
  it("is a sparse ext4 image of the size, for this user alone", async () => {
    const folder = await temporaryFolder();
    const path = join(folder, "stateful.img");
    await makeStatefulDisk(path, 64);
    const { size, blocks, mode } = await stat(path);
    expect(size).toBe(64 * 1_048_576);
    expect(blocks * 512).toBeLessThan(16 * 1_048_576);
    expect(mode & 0o777).toBe(0o600);
    execFileSync(findProgram("e2fsck", ""), ["-f", "-n", path], { stdio: "pipe" });
    const label = (await readFile(path)).readUInt16LE(1024 + 0x38); // ext4's magic number
    expect(label).toBe(0xef53);
    expect(await readdir(folder)).toEqual(["stateful.img"]);
  });

  it("grows, keeps its content, and never shrinks", async () => {
    const path = join(await temporaryFolder(), "stateful.img");
    await makeStatefulDisk(path, 8);
    const before = await readFile(path);
    await growDisk(path, 16);
    await growDisk(path, 16);
    expect((await stat(path)).size).toBe(16 * 1_048_576);
    expect((await readFile(path)).subarray(0, before.length).equals(before)).toBe(true);
    const shrinking = growDisk(path, 8);
    await expect(shrinking).rejects.toMatchObject({ code: "invalid-input", input: "statefulDiskMiB" });
    await expect(shrinking).rejects.toThrow(/has 16 MiB and cannot shrink to 8 MiB/);
    expect((await stat(path)).size).toBe(16 * 1_048_576);
  });

  it("does not replace a file that is there", async () => {
    const path = join(await temporaryFolder(), "stateful.img");
    await writeFile(path, "data");
    await expect(makeStatefulDisk(path, 8)).rejects.toThrow(/is there already/);
    expect(await readFile(path, "utf8")).toBe("data");
  });

  it.each([0, -1, 1.5, Number.NaN, Infinity, 16_777_217])("is refused with %d MiB", async (sizeMiB) => {
    const path = join(await temporaryFolder(), "stateful.img");
    await expect(makeStatefulDisk(path, sizeMiB)).rejects.toMatchObject({ code: "invalid-input" });
    await expect(growDisk(path, sizeMiB)).rejects.toMatchObject({ code: "invalid-input" });
  });

  it("cannot grow where there is none", async () => {
    const path = join(await temporaryFolder(), randomBytes(4).toString("hex"));
    await expect(growDisk(path, 8)).rejects.toMatchObject({ code: "state-directory" });
  });

  describe.skipIf(!mayMount)("on a broken file system (needs root and mount)", () => {
    it("says that it is full, and leaves nothing", async () => {
      const folder = await temporaryFolder();
      mountTmpfs(folder, "size=512k");
      await writeFile(join(folder, "filler"), Buffer.alloc(1_000_000)).catch(() => undefined);
      const making = makeStatefulDisk(join(folder, "stateful.img"), 64);
      await expect(making).rejects.toMatchObject({
        code: "state-directory",
        message: expect.stringMatching(/file system is full/) as string,
      });
      expect(await readdir(folder)).toEqual(["filler"]);
    });

    it("says that it is read-only", async () => {
      const folder = await temporaryFolder();
      mountTmpfs(folder, "size=512k");
      remountReadOnly(folder);
      await expect(makeStatefulDisk(join(folder, "stateful.img"), 8)).rejects.toThrow(/mounted read-only/);
    });
  });
});

describe("finding a program", () => {
  it("looks on PATH first, then where the system keeps its own", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "sh"), "#!/bin/true\n", { mode: 0o755 });
    expect(findProgram("sh", "", { PATH: folder })).toBe(join(folder, "sh"));
    expect(findProgram("sh", "", { PATH: "" })).toMatch(/^\/(usr\/)?s?bin\/sh$/);
    expect(findProgram("/bin/sh", "")).toBe("/bin/sh");
  });

  it("does not take a folder or a file that cannot be run", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "nothing-runs-this"), "", { mode: 0o644 });
    expect(() => findProgram("nothing-runs-this", "install it", { PATH: folder })).toThrow(/install it/);
    expect(() => findProgram(folder, "install it")).toThrow(/install it/);
  });

  it("names the package that brings it", () => {
    expect(() => findProgram("mkfs.none", "install the package e2fsprogs")).toThrow(
      expect.objectContaining({
        code: "host-unusable",
        message: expect.stringMatching(/mkfs\.none.*install the package e2fsprogs/) as string,
      }),
    );
  });
});
