import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { claimName } from "../../../provider/host/claim.js";
import { confirm, isConfirmed } from "../../../provider/host/confirm.js";
import { vmDirectory, vmPaths } from "../../../provider/host/paths.js";
import { listRecords, readRecord, writeRecord } from "../../../provider/host/record.js";
import { mayMount, mountTmpfs, remountReadOnly, temporaryFolder } from "./folders.js";
import { sampleRecord, sampleWork } from "./sample-record.js";

async function claimed(stateDirectory: string, vmName = "web") {
  const record = sampleRecord({ vmName });
  await claimName(stateDirectory, record, sampleWork());
  return record;
}

describe("a VM's name as a path", () => {
  it.each(["", ".", "..", ".lost", "a/b", "a\0b", "-a", "a-", "a.b", "a b", "ä", "a\n", "x".repeat(64)])(
    "refuses %j",
    (vmName) => {
      expect(() => vmDirectory("/state", vmName)).toThrow(
        expect.objectContaining({ code: "invalid-input", input: "vmName" }),
      );
    },
  );

  it.each(["a", "0", "web-1", "x".repeat(63)])("takes %j", (vmName) => {
    expect(vmDirectory("/state", vmName)).toBe(`/state/${vmName}`);
  });

  it("refuses a state directory that is not absolute", () => {
    expect(() => vmDirectory("state", "web")).toThrow(expect.objectContaining({ code: "state-directory" }));
  });
});

describe("a record", () => {
  it("reads as it was written, with what a later release added to it", async () => {
    const state = await temporaryFolder();
    const record = await claimed(state);
    const changed = { ...record, phase: "ready" as const, proved: true, later: { more: 1 } };
    await writeRecord(state, changed);
    expect(await readRecord(state, "web")).toEqual(changed);
  });

  it("is undefined where there is none", async () => {
    const state = await temporaryFolder();
    expect(await readRecord(state, "web")).toBeUndefined();
    expect(await readRecord(join(state, "none"), "web")).toBeUndefined();
  });

  it("leaves no other file beside it", async () => {
    const state = await temporaryFolder();
    const record = await claimed(state);
    await writeRecord(state, record);
    expect(await readdir(vmDirectory(state, "web"))).toEqual(["vm.json"]);
  });

  it.each([
    ["torn", (text: string) => text.slice(0, 200), /is torn/],
    ["empty", () => "", /is torn/],
    [
      "of another version",
      (text: string) => text.replace('"version": 1', '"version": 2'),
      /version 2 \(number\)/,
    ],
    ["of the wrong shape", (text: string) => text.replace('"vcpus": 1', '"vcpus": "one"'), /boot\.vcpus/],
    ["no object", () => "[]", /version nothing/],
  ])("that is %s is an error that says what to do", async (_, change, message) => {
    const state = await temporaryFolder();
    await claimed(state);
    const { record: path } = vmPaths(state, "web");
    await writeFile(path, change(await readFile(path, "utf8")));
    const reading = readRecord(state, "web");
    await expect(reading).rejects.toMatchObject({ code: "record-unreadable" });
    await expect(reading).rejects.toThrow(message);
    await expect(reading).rejects.toThrow(/microvm rm web/);
  });

  it("of a folder that was renamed is an error", async () => {
    const state = await temporaryFolder();
    await claimed(state);
    await rename(vmDirectory(state, "web"), vmDirectory(state, "copy"));
    await expect(readRecord(state, "copy")).rejects.toMatchObject({ code: "record-unreadable" });
  });

  it("cannot be written that could not be read again", async () => {
    const state = await temporaryFolder();
    const record = await claimed(state);
    const wrong = { ...record, phase: "asleep" } as unknown as typeof record;
    await expect(writeRecord(state, wrong)).rejects.toThrow(/phase/);
    expect(await readRecord(state, "web")).toEqual(record);
  });

  it("is not written into the folder of another instance", async () => {
    const state = await temporaryFolder();
    const record = await claimed(state);
    const other = sampleRecord();
    await expect(writeRecord(state, other)).rejects.toMatchObject({ code: "state-directory" });
    await expect(writeRecord(state, sampleRecord({ vmName: "gone" }))).rejects.toThrow(/holds no record/);
    expect(await readRecord(state, "web")).toEqual(record);
  });

  it("is never torn for a reader while it is being written", async () => {
    const state = await temporaryFolder();
    const record = await claimed(state);
    const progress = { done: false };
    const writer = (async () => {
      for (let turn = 0; turn < 100; turn++) {
        await writeRecord(state, { ...record, boot: { ...record.boot, cmdline: "x".repeat(turn * 50) } });
      }
      progress.done = true;
    })();
    let reads = 0;
    while (!progress.done) {
      expect((await readRecord(state, "web"))?.instance).toBe(record.instance);
      reads++;
    }
    await writer;
    expect(reads).toBeGreaterThan(10);
  });
});

describe("listing records", () => {
  it("is empty where there is no state directory", async () => {
    expect(await listRecords(join(await temporaryFolder(), "none"))).toEqual([]);
  });

  it("shows a torn record beside the others, and nothing that is no VM", async () => {
    const state = await temporaryFolder();
    const b = await claimed(state, "b");
    await claimed(state, "a");
    await writeFile(vmPaths(state, "a").record, "{");
    await mkdir(join(state, ".lost"));
    await mkdir(join(state, "lost+found"));
    await writeFile(join(state, "host-id"), "");
    expect(await listRecords(state)).toEqual([
      { vmName: "a", error: expect.objectContaining({ code: "record-unreadable" }) as unknown },
      { vmName: "b", record: b },
    ]);
  });
});

describe("a confirmation", () => {
  it("holds for its instance alone, and may be repeated", async () => {
    const state = await temporaryFolder();
    const { instance } = await claimed(state);
    const other = randomBytes(8).toString("hex");
    expect(await confirm(state, "web", other)).toBe(false);
    expect(await isConfirmed(state, "web", instance)).toBe(false);
    expect(await confirm(state, "web", instance)).toBe(true);
    expect(await confirm(state, "web", instance)).toBe(true);
    expect(await isConfirmed(state, "web", instance)).toBe(true);
    expect(await isConfirmed(state, "web", other)).toBe(false);
  });

  it("has no effect where there is no VM, and makes nothing", async () => {
    const state = await temporaryFolder();
    expect(await confirm(state, "web", randomBytes(8).toString("hex"))).toBe(false);
    expect(await confirm(join(state, "none"), "web", randomBytes(8).toString("hex"))).toBe(false);
    expect(await readdir(state)).toEqual([]);
  });

  it("loses nothing in a race with writers of the record", async () => {
    const state = await temporaryFolder();
    for (let turn = 0; turn < 20; turn++) {
      const vmName = `vm${turn}`;
      const record = await claimed(state, vmName);
      const ready = { ...record, phase: "ready" as const };
      const [confirmed] = await Promise.all([
        confirm(state, vmName, record.instance),
        writeRecord(state, ready),
        confirm(state, vmName, record.instance),
      ]);
      expect(confirmed).toBe(true);
      expect(await isConfirmed(state, vmName, record.instance)).toBe(true);
      expect(await readRecord(state, vmName)).toEqual(ready);
    }
  });

  it("loads no module but Node's and its own", () => {
    const script =
      'require("tsx/cjs"); require("./provider/host/confirm.ts");' +
      "console.log(Object.keys(require.cache).filter((path) => /node_modules.(zod|undici)/.test(path)).length)";
    expect(execFileSync(process.execPath, ["-e", script], { encoding: "utf8" }).trim()).toBe("0");
  });
});

describe.skipIf(!mayMount)("on a broken file system (needs root and mount)", () => {
  it("says that it is full, and keeps the record as it was", async () => {
    const state = await temporaryFolder();
    mountTmpfs(state, "size=64k");
    const record = await claimed(state);
    await writeFile(join(state, "filler"), Buffer.alloc(1_000_000)).catch(() => undefined);
    const big = { ...record, boot: { ...record.boot, cmdline: "x".repeat(20_000) } };
    await expect(writeRecord(state, big)).rejects.toMatchObject({
      code: "state-directory",
      message: expect.stringMatching(/file system is full.*ENOSPC/) as string,
    });
    expect(await readRecord(state, "web")).toEqual(record);
    expect(await readdir(vmDirectory(state, "web"))).toEqual(["vm.json"]);
  });

  it("says that it is read-only", async () => {
    const state = await temporaryFolder();
    mountTmpfs(state, "size=1m");
    const record = await claimed(state);
    remountReadOnly(state);
    await expect(writeRecord(state, record)).rejects.toThrow(/read-only.*EROFS/);
    await expect(confirm(state, "web", record.instance)).rejects.toThrow(/read-only.*EROFS/);
  });
});
