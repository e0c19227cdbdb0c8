import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { chmod, chown, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { controlSocketPath, runtimeDirectory } from "../../../provider/host/runtime-directory.js";
import {
  defaultStateDirectory,
  openStateDirectory,
  readHostId,
} from "../../../provider/host/state-directory.js";
import { mayMount, mountTmpfs, remountReadOnly, temporaryFolder } from "./folders.js";

const isRoot = process.getuid?.() === 0;

const hasMachineId = existsSync("/etc/machine-id") && readFileSync("/etc/machine-id", "utf8").length > 32;

async function modeOf(path: string): Promise<number> {
  return (await stat(path)).mode & 0o7777;
}

describe("the default state directory", () => {
  it("is below XDG_STATE_HOME", () => {
    expect(defaultStateDirectory({ XDG_STATE_HOME: "/var/state" })).toBe("/var/state/pulumi-microvm");
  });

  it("is below the home folder without it, or when it is not absolute", () => {
    const expected = "/home/ann/.local/state/pulumi-microvm";
    expect(defaultStateDirectory({ HOME: "/home/ann" })).toBe(expected);
    expect(defaultStateDirectory({ HOME: "/home/ann", XDG_STATE_HOME: "" })).toBe(expected);
    expect(defaultStateDirectory({ HOME: "/home/ann", XDG_STATE_HOME: "state" })).toBe(expected);
    expect(defaultStateDirectory({})).toBe(join(homedir(), ".local/state/pulumi-microvm"));
  });
});

describe("a state directory", () => {
  it("is made for this user alone, with a host id that stays", async () => {
    const path = join(await temporaryFolder(), "deep", "state");
    const opened = await openStateDirectory(path);
    expect(opened).toEqual({ path, hostId: expect.stringMatching(/^[0-9a-f]{32}$/) as string });
    expect(await modeOf(path)).toBe(0o700);
    expect(await modeOf(join(path, "host-id"))).toBe(0o600);
    expect(await openStateDirectory(path)).toEqual(opened);
    expect(await readHostId(path)).toBe(opened.hostId);
  });

  it("has another host id than the next one", async () => {
    const base = await temporaryFolder();
    const [a, b] = [await openStateDirectory(join(base, "a")), await openStateDirectory(join(base, "b"))];
    expect(a.hostId).not.toBe(b.hostId);
  });

  it("is one host for processes that make it at the same time", async () => {
    const path = join(await temporaryFolder(), "state");
    const script =
      'require("tsx/cjs"); const { openStateDirectory } = require("./provider/host/state-directory.ts");' +
      'process.stdin.once("data", () => {' +
      "  const opened = Array.from({ length: 8 }, () => openStateDirectory(process.argv[1]));" +
      "  Promise.all(opened).then((all) => { for (const { hostId } of all) console.log(hostId); process.exit(); });" +
      '}); console.log("ready");';
    const children = Array.from({ length: 3 }, () => spawn(process.execPath, ["-e", script, path]));
    const outputs = children.map((child) => {
      let text = "";
      child.stdout.on("data", (data: Buffer) => (text += data.toString()));
      return { child, text: () => text };
    });
    await Promise.all(children.map((child) => once(child.stdout, "data")));
    const ended = children.map((child) => once(child, "exit"));
    for (const child of children) child.stdin.write("go\n");
    await Promise.all(ended);
    const ids = outputs.flatMap(({ text }) => text().trim().split("\n").slice(1));
    expect(ids).toHaveLength(24);
    expect(new Set(ids)).toEqual(new Set([await readHostId(path)]));
    expect(await readdir(path)).toEqual(["host-id"]);
  });

  it("is refused when it is not absolute", async () => {
    await expect(openStateDirectory("state")).rejects.toMatchObject({ code: "state-directory" });
    await expect(readHostId("state")).rejects.toMatchObject({ code: "state-directory" });
  });

  it.each([0o770, 0o702, 0o1777])("is refused when others can write to it (mode %o)", async (mode) => {
    const path = await temporaryFolder();
    await chmod(path, mode);
    const opening = openStateDirectory(path);
    await expect(opening).rejects.toMatchObject({ code: "state-directory" });
    await expect(opening).rejects.toThrow(`chmod 700 ${path}`);
    expect(await readdir(path)).toEqual([]);
  });

  it("is refused when it is a file, or below one", async () => {
    const file = join(await temporaryFolder(), "file");
    await writeFile(file, "");
    await expect(openStateDirectory(file)).rejects.toThrow(/is no folder/);
    await expect(openStateDirectory(join(file, "state"))).rejects.toMatchObject({ code: "state-directory" });
  });

  it.skipIf(!isRoot)("is refused when another user owns it (needs root)", async () => {
    const path = await temporaryFolder();
    await chown(path, 12_345, 12_345);
    await expect(openStateDirectory(path)).rejects.toThrow(/belongs to user 12345, and this is user 0/);
  });

  it.skipIf(isRoot)("is refused when its rights forbid writing (needs a user other than root)", async () => {
    const path = await temporaryFolder();
    await chmod(path, 0o500);
    await expect(openStateDirectory(path)).rejects.toMatchObject({ code: "state-directory" });
  });

  it.each(["", "abc", `${"0".repeat(31)}g`])("is refused when its host id is torn: %j", async (content) => {
    const path = await temporaryFolder();
    await writeFile(join(path, "host-id"), content);
    await expect(openStateDirectory(path)).rejects.toThrow(/must hold 32 hex digits/);
    await expect(readHostId(path)).rejects.toMatchObject({ code: "state-directory" });
    expect(await readFile(join(path, "host-id"), "utf8")).toBe(content);
  });

  it.skipIf(!hasMachineId)(
    "is refused on another machine that mounts the same folder (needs a machine id)",
    async () => {
      const path = await temporaryFolder();
      const { hostId } = await openStateDirectory(path);
      const lines = (await readFile(join(path, "host-id"), "utf8")).split("\n");
      expect(lines).toEqual([hostId, expect.stringMatching(/^[0-9a-f]{32}$/), ""]);
      await writeFile(join(path, "host-id"), `${hostId}\n${"0".repeat(32)}\n`);
      await expect(openStateDirectory(path)).rejects.toMatchObject({ code: "other-host" });
      await expect(readHostId(path)).rejects.toThrow(/made on another machine.*XDG_STATE_HOME/);
      await writeFile(join(path, "host-id"), `${hostId}\n`);
      expect(await readHostId(path)).toBe(hostId);
    },
  );

  it("has no host id before it is made, and reading makes nothing", async () => {
    const path = join(await temporaryFolder(), "state");
    expect(await readHostId(path)).toBeUndefined();
    await expect(stat(path)).rejects.toMatchObject({ code: "ENOENT" });
  });

  describe.skipIf(!mayMount)("on a broken file system (needs root and mount)", () => {
    it("is refused when that is read-only", async () => {
      const path = await temporaryFolder();
      mountTmpfs(path, "size=1m,mode=700");
      const { hostId } = await openStateDirectory(path);
      remountReadOnly(path);
      await expect(openStateDirectory(path)).rejects.toThrow(/mounted read-only/);
      expect(await readHostId(path)).toBe(hostId);
    });

    it("is refused when that is full, and no torn host id is left", async () => {
      const path = await temporaryFolder();
      mountTmpfs(path, "size=8k,mode=700");
      await writeFile(join(path, "filler"), Buffer.alloc(100_000)).catch(() => undefined);
      await expect(openStateDirectory(path)).rejects.toMatchObject({
        code: "state-directory",
        message: expect.stringMatching(/file system is full/) as string,
      });
      expect(await readdir(path)).toEqual(["filler"]);
    });
  });
});

describe("the runtime directory", () => {
  it("is below XDG_RUNTIME_DIR, for this user alone", async () => {
    const base = await temporaryFolder();
    const path = await runtimeDirectory({ XDG_RUNTIME_DIR: base });
    expect(path).toBe(join(base, "pulumi-microvm"));
    expect(await modeOf(path)).toBe(0o700);
    expect(await runtimeDirectory({ XDG_RUNTIME_DIR: base })).toBe(path);
  });

  it("is elsewhere when XDG_RUNTIME_DIR is not absolute or not there", async () => {
    const fallback = isRoot ? "/run/pulumi-microvm" : `/tmp/pulumi-microvm-${process.getuid?.()}`;
    const missing = join(await temporaryFolder(), "missing");
    expect(await runtimeDirectory({})).toBe(fallback);
    expect(await runtimeDirectory({ XDG_RUNTIME_DIR: "run" })).toBe(fallback);
    expect(await runtimeDirectory({ XDG_RUNTIME_DIR: missing })).toBe(fallback);
  });

  it("is refused as a symbolic link", async () => {
    const base = await temporaryFolder();
    await mkdir(join(base, "elsewhere"), { mode: 0o700 });
    await symlink(join(base, "elsewhere"), join(base, "pulumi-microvm"));
    await expect(runtimeDirectory({ XDG_RUNTIME_DIR: base })).rejects.toThrow(/is no folder/);
  });

  it("is refused when it is open to others", async () => {
    const base = await temporaryFolder();
    await mkdir(join(base, "pulumi-microvm"));
    await chmod(join(base, "pulumi-microvm"), 0o755);
    await expect(runtimeDirectory({ XDG_RUNTIME_DIR: base })).rejects.toThrow(/mode 755, expected 700/);
  });

  it.skipIf(!isRoot)("is refused when another user owns it (needs root)", async () => {
    const base = await temporaryFolder();
    await mkdir(join(base, "pulumi-microvm"), { mode: 0o700 });
    await chown(join(base, "pulumi-microvm"), 12_345, 12_345);
    await expect(runtimeDirectory({ XDG_RUNTIME_DIR: base })).rejects.toThrow(/belongs to user 12345/);
  });

  it.skipIf(!isRoot)("is not below another user's XDG_RUNTIME_DIR, as after sudo (needs root)", async () => {
    const base = await temporaryFolder();
    await chown(base, 12_345, 12_345);
    expect(await runtimeDirectory({ XDG_RUNTIME_DIR: base })).toBe("/run/pulumi-microvm");
    expect(await readdir(base)).toEqual([]);
  });
});

describe("a control socket's path", () => {
  it("carries the instance", async () => {
    const base = await temporaryFolder();
    expect(await controlSocketPath("0123456789abcdef", { XDG_RUNTIME_DIR: base })).toBe(
      join(base, "pulumi-microvm", "0123456789abcdef.sock"),
    );
  });

  it("is refused over the 107 bytes of unix(7), which count bytes and not letters", async () => {
    const base = await temporaryFolder();
    const rest = "/pulumi-microvm/0123456789abcdef.sock".length;
    for (const [length, letter] of [
      [107, "x"],
      [108, "x"],
      [108, "ä"],
    ] as const) {
      const bytes = length - rest - Buffer.byteLength(base) - 1;
      const name = letter.repeat(Math.floor(bytes / Buffer.byteLength(letter))).padEnd(1, "x");
      const filler = "x".repeat(bytes - Buffer.byteLength(name));
      const env = { XDG_RUNTIME_DIR: join(base, name + filler) };
      await mkdir(env.XDG_RUNTIME_DIR, { mode: 0o700 });
      const path = controlSocketPath("0123456789abcdef", env);
      if (length === 107) expect(Buffer.byteLength(await path)).toBe(107);
      else await expect(path).rejects.toThrow(/at most 107 bytes.*has 108/);
    }
  });
});
