import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmod, mkdtemp, readdir, readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  ensureInitramfs,
  type GeneratedInitramfs,
  initramfsEntries,
} from "../../../../provider/host/initramfs/initramfs.js";
import { dhcpScript, initApplets, initScript } from "../../../../provider/host/initramfs/init-script.js";
import { isOnPath } from "../../../lab/programs.js";
import { factsIn, moduleFile, RELEASE, writeModuleTree } from "./fixtures.js";

const noBusybox = isOnPath("busybox") ? "" : " (skipped: busybox is not installed)";

let folder: string;
let cacheDirectory: string;
let tree: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "initramfs-"));
  cacheDirectory = join(folder, "deep", "cache");
  tree = join(folder, "lib", "modules", RELEASE);
  await writeModuleTree(tree, {
    "a.ko": moduleFile(["depends=b"]),
    "b.ko": moduleFile(["depends="]),
    "evdev.ko": moduleFile(["depends="]),
  });
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

function make(overrides: Partial<Parameters<typeof ensureInitramfs>[0]> = {}): Promise<GeneratedInitramfs> {
  return ensureInitramfs({
    facts: factsIn(folder),
    modules: ["a"],
    optionalModules: ["button", "evdev"],
    cacheDirectory,
    ...overrides,
  });
}

describe.skipIf(noBusybox)(`an initramfs of our own${noBusybox}`, () => {
  it("is named by its content, and holds the modules in the order of loading", async () => {
    const made = await make();
    const content = await readFile(made.path);
    expect(createHash("sha256").update(content).digest("hex")).toBe(made.sha256);
    expect(made).toEqual({
      path: join(cacheDirectory, `initramfs-${made.sha256}.cpio`),
      sha256: made.sha256,
      generated: true,
    });
    expect(content.includes("b required\na required\nevdev optional\n")).toBe(true);
  });

  it("has the same bytes wherever and whenever it is made", async () => {
    const first = await make();
    const second = await make({ cacheDirectory: join(folder, "elsewhere") });
    expect(second.sha256).toBe(first.sha256);
    expect((await readFile(second.path)).equals(await readFile(first.path))).toBe(true);
  });

  it("is not made again while nothing has changed", async () => {
    const made = await make();
    const before = await stat(made.path);
    expect(await make()).toEqual(made);
    expect((await stat(made.path)).ino).toBe(before.ino);
  });

  it("is made anew when a module changes, even to one of the same size and time", async () => {
    const first = await make();
    const path = join(tree, "kernel", "b.ko");
    const { size, atime, mtime } = await stat(path);
    await writeFile(path, Buffer.alloc(size, 1));
    await utimes(path, atime, mtime);
    expect((await make()).sha256).not.toBe(first.sha256);
  });

  it("is made anew when other modules are asked for", async () => {
    expect((await make({ modules: ["b"] })).sha256).not.toBe((await make()).sha256);
  });

  it("that was cut short, overwritten or removed is put right", async () => {
    const made = await make();
    const content = await readFile(made.path);
    await truncate(made.path, 100);
    await make();
    expect((await readFile(made.path)).equals(content)).toBe(true);
    await writeFile(made.path, Buffer.alloc(content.length));
    await make();
    expect((await readFile(made.path)).equals(content)).toBe(true);
    await rm(made.path);
    await make();
    expect((await readFile(made.path)).equals(content)).toBe(true);
  });

  it("is made when what is remembered of it is torn", async () => {
    const made = await make();
    const note = (await readdir(cacheDirectory)).find((name) => name.endsWith(".json"));
    for (const torn of ["{", "null", "[]", '{"sha256":1}']) {
      await writeFile(join(cacheDirectory, note ?? ""), torn);
      expect(await make()).toEqual(made);
    }
  });

  it("can be made by several at once, and leaves no other files", async () => {
    const all = await Promise.all(Array.from({ length: 8 }, () => make()));
    expect(new Set(all.map(({ path }) => path)).size).toBe(1);
    const endings = (await readdir(cacheDirectory)).map((name) => name.replace(/^.*\./, ""));
    expect(new Set(endings)).toEqual(new Set(["cpio", "json"]));
    expect(endings).toHaveLength(2);
  });

  it("without modules needs no module folder", async () => {
    await rm(tree, { recursive: true });
    const made = await make({ modules: [], optionalModules: [] });
    expect((await readFile(made.path)).includes("modules/order")).toBe(true);
  });

  it("that cannot be written is an error that names the place", async () => {
    await writeFile(join(folder, "deep"), "a file");
    const error = await make().catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: "state-directory" });
    expect(String(error)).toContain(cacheDirectory);
  });
});

describe("the scripts in it", () => {
  it.skipIf(noBusybox)(`are understood by busybox' shell${noBusybox}`, async () => {
    for (const script of [initScript, dhcpScript]) {
      const path = join(folder, "script");
      await writeFile(path, script);
      await chmod(path, 0o755);
      execFileSync("busybox", ["sh", "-n", path]);
    }
  });

  it.skipIf(noBusybox)(`call programs that busybox has, each by a link${noBusybox}`, () => {
    const applets = execFileSync("busybox", ["--list"]).toString().split("\n");
    expect(initApplets.filter((name) => !applets.includes(name))).toEqual([]);
    const entries = initramfsEntries({ path: "/busybox", content: Buffer.alloc(0), stamp: "" }, []);
    const links = entries.filter(({ type }) => type === "link").map(({ path }) => path);
    expect(links).toEqual(initApplets.map((name) => `bin/${name}`));
  });
});
