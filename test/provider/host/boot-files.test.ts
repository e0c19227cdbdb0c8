import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFile,
  chmod,
  mkdir,
  readdir,
  readFile,
  rename,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { copyIn, digestOf } from "../../../provider/host/boot-files.js";
import { readCachedDigest, writeCachedDigest } from "../../../provider/host/digest-cache.js";
import { mayMount, mountTmpfs, remountReadOnly, temporaryFolder } from "./folders.js";

const isRoot = process.getuid?.() === 0;

function sha256(content: string | Buffer): string {
  return createHash("sha256").update(content).digest("hex");
}

/** Waits until the file has not changed for so long that its digest may be remembered. */
async function untilSettled(path: string): Promise<void> {
  await expect
    .poll(async () => Date.now() - (await stat(path)).ctimeMs, { timeout: 5000 })
    .toBeGreaterThan(2000);
}

/** The digest as a process of its own finds it. */
function digestElsewhere(path: string, stateDirectory: string): string {
  const script =
    'require("tsx/cjs"); require("./provider/host/boot-files.ts")' +
    '.digestOf(process.argv[1], "kernel", process.argv[2]).then(console.log)';
  return execFileSync(process.execPath, ["-e", script, path, stateDirectory], { encoding: "utf8" }).trim();
}

describe("a digest", () => {
  it("is the SHA-256 of the content, for any size", async () => {
    const path = join(await temporaryFolder(), "file");
    for (const content of [Buffer.alloc(0), Buffer.from("abc"), Buffer.alloc(2_500_000, "x")]) {
      await writeFile(path, content);
      expect(await digestOf(path, "kernel")).toBe(sha256(content));
    }
  });

  it("follows a change at once, even one of the same size and mtime", async () => {
    const path = join(await temporaryFolder(), "file");
    const time = new Date("2020-01-01T00:00:00Z");
    for (const content of ["one", "two", "six"]) {
      await writeFile(path, content);
      await utimes(path, time, time);
      expect(await digestOf(path, "kernel")).toBe(sha256(content));
    }
  });

  it("follows a change after it was remembered, in place and by rename", async () => {
    const folder = await temporaryFolder();
    const path = join(folder, "file");
    const state = join(folder, "state");
    await mkdir(state);
    await writeFile(path, "one");
    await untilSettled(path);
    expect(await digestOf(path, "kernel", state)).toBe(sha256("one"));
    expect(await digestOf(path, "kernel", state)).toBe(sha256("one"));
    const { atime, mtime } = await stat(path);
    await writeFile(path, "two");
    await utimes(path, atime, mtime);
    expect(await digestOf(path, "kernel", state)).toBe(sha256("two"));
    await writeFile(join(folder, "next"), "six");
    await utimes(join(folder, "next"), atime, mtime);
    await rename(join(folder, "next"), path);
    expect(await digestOf(path, "kernel", state)).toBe(sha256("six"));
  });

  it("is kept in the state directory for other processes, once the file has settled", async () => {
    const folder = await temporaryFolder();
    const [path, state] = [join(folder, "file"), join(folder, "state")];
    await mkdir(state);
    await writeFile(path, "one");
    expect(await digestOf(path, "kernel", state)).toBe(sha256("one"));
    expect(await readdir(state)).toEqual([]);
    await untilSettled(path);
    expect(digestElsewhere(path, state)).toBe(sha256("one"));
    const cache = join(state, ".cache", "digests");
    const [name] = await readdir(cache);
    const kept = join(cache, name ?? "");
    // What is kept is believed: so the file itself was not read again.
    await writeFile(kept, (await readFile(kept, "utf8")).replace(sha256("one"), "a".repeat(64)));
    expect(digestElsewhere(path, state)).toBe("a".repeat(64));
    await writeFile(kept, "{");
    expect(digestElsewhere(path, state)).toBe(sha256("one"));
    expect(await readFile(kept, "utf8")).toContain(sha256("one"));
  });

  it("is found without a state directory that can be written, and does not make one", async () => {
    const folder = await temporaryFolder();
    const path = join(folder, "file");
    await writeFile(path, "one");
    await untilSettled(path);
    expect(await digestOf(path, "kernel", join(folder, "none"))).toBe(sha256("one"));
    expect(await readdir(folder)).toEqual(["file"]);
  });

  it("is asked for once by many calls at the same time", async () => {
    const path = join(await temporaryFolder(), "file");
    await writeFile(path, Buffer.alloc(1_000_000));
    await untilSettled(path);
    const digests = await Promise.all(Array.from({ length: 50 }, () => digestOf(path, "kernel")));
    expect(new Set(digests)).toEqual(new Set([sha256(Buffer.alloc(1_000_000))]));
  });

  it("follows symbolic links, as /vmlinuz is one", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "vmlinuz-6.1"), "one");
    await symlink("vmlinuz-6.1", join(folder, "vmlinuz"));
    expect(await digestOf(join(folder, "vmlinuz"), "kernel")).toBe(sha256("one"));
  });

  it("of what is no readable file is an error that names the input", async () => {
    const folder = await temporaryFolder();
    execFileSync("mkfifo", [join(folder, "fifo")]);
    await symlink("nowhere", join(folder, "dangling"));
    await writeFile(join(folder, "file"), "");
    const cases = [
      [join(folder, "missing"), /kernel: there is no file .*missing/],
      [join(folder, "dangling"), /there is no file/],
      [join(folder, "file", "below"), /there is no file/],
      [folder, /no regular file/],
      [join(folder, "fifo"), /no regular file/],
      ["/dev/null", /no regular file/],
      ["vmlinuz", /expected an absolute path/],
      [`${folder}/a\0b`, /cannot read/],
    ] as const;
    for (const [path, message] of cases) {
      const digest = digestOf(path, "kernel");
      await expect(digest).rejects.toMatchObject({ code: "file-unusable", input: "kernel" });
      await expect(digest).rejects.toThrow(message);
    }
  });

  it.skipIf(isRoot)("of a file without the right to read it says how to get it (not as root)", async () => {
    const path = join(await temporaryFolder(), "vmlinuz");
    await writeFile(path, "");
    await chmod(path, 0o000);
    await expect(digestOf(path, "kernel")).rejects.toThrow(/chmod a\+r/);
  });
});

describe("the digest cache", () => {
  it("gives nothing for another path or content, and is silent where it cannot be written", async () => {
    const state = await temporaryFolder();
    await writeCachedDigest(state, "/a", "key", "b".repeat(64));
    expect(await readCachedDigest(state, "/a", "key")).toBe("b".repeat(64));
    expect(await readCachedDigest(state, "/a", "other")).toBeUndefined();
    expect(await readCachedDigest(state, "/b", "key")).toBeUndefined();
    const [name] = await readdir(join(state, ".cache", "digests"));
    const kept = join(state, ".cache", "digests", name ?? "");
    for (const torn of ["", "{", "[]", "null", (await readFile(kept, "utf8")).replace("b", "g")]) {
      await writeFile(kept, torn);
      expect(await readCachedDigest(state, "/a", "key")).toBeUndefined();
    }
    await writeFile(join(state, "file"), "");
    await writeCachedDigest(join(state, "file"), "/a", "key", "b".repeat(64));
  });
});

describe("copying a boot file in", () => {
  it("gives the planned bytes, for this user alone, and replaces an old copy", async () => {
    const folder = await temporaryFolder();
    const source = join(folder, "vmlinuz");
    const target = join(folder, "kernel");
    for (const content of ["one", "two"]) {
      await writeFile(source, content, { mode: 0o644 });
      await copyIn({ path: source, sha256: sha256(content) }, target, "kernel");
      expect(await readFile(target, "utf8")).toBe(content);
      expect((await stat(target)).mode & 0o777).toBe(0o600);
    }
    await appendFile(source, "more");
    expect(await readFile(target, "utf8")).toBe("two");
    expect(await readdir(folder)).toEqual(["kernel", "vmlinuz"]);
  });

  it("of a file that changed since the preview is an error, and leaves nothing", async () => {
    const folder = await temporaryFolder();
    const source = join(folder, "vmlinuz");
    await writeFile(source, "two");
    const copying = copyIn({ path: source, sha256: sha256("one") }, join(folder, "kernel"), "kernel");
    await expect(copying).rejects.toMatchObject({ code: "file-unusable", input: "kernel" });
    await expect(copying).rejects.toThrow(/changed since the preview.*run again/);
    expect(await readdir(folder)).toEqual(["vmlinuz"]);
  });

  it("of a file that is gone is an error that names the input", async () => {
    const folder = await temporaryFolder();
    const source = { path: join(folder, "gone"), sha256: sha256("") };
    await expect(copyIn(source, join(folder, "initramfs"), "initramfs")).rejects.toMatchObject({
      code: "file-unusable",
      input: "initramfs",
    });
  });

  it("to a folder that is gone is the state directory's fault, not the file's", async () => {
    const folder = await temporaryFolder();
    const source = join(folder, "vmlinuz");
    await writeFile(source, "one");
    const copying = copyIn({ path: source, sha256: sha256("one") }, join(folder, "none", "kernel"), "kernel");
    await expect(copying).rejects.toMatchObject({ code: "state-directory" });
  });

  describe.skipIf(!mayMount)("to a broken file system (needs root and mount)", () => {
    it.each([
      ["full", /file system is full/],
      ["read-only", /mounted read-only/],
    ])("says that it is %s, and leaves nothing", async (how, message) => {
      const folder = await temporaryFolder();
      const source = join(await temporaryFolder(), "vmlinuz");
      const content = Buffer.alloc(1_000_000, "x");
      await writeFile(source, content);
      mountTmpfs(folder, "size=512k");
      if (how === "read-only") remountReadOnly(folder);
      const copying = copyIn({ path: source, sha256: sha256(content) }, join(folder, "kernel"), "kernel");
      await expect(copying).rejects.toMatchObject({ code: "state-directory" });
      await expect(copying).rejects.toThrow(message);
      expect(await readdir(folder)).toEqual([]);
    });
  });
});
