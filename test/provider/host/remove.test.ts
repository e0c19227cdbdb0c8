import { spawn } from "node:child_process";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it, onTestFinished } from "vitest";

import { claimName } from "../../../provider/host/claim.js";
import { vmDirectory, vmPaths } from "../../../provider/host/paths.js";
import { identify, isAlive } from "../../../provider/host/process.js";
import { readRecord } from "../../../provider/host/record.js";
import { removeUnreadable, removeVmDirectory, sweep } from "../../../provider/host/remove.js";
import { mayMount, mountTmpfs, remountReadOnly, temporaryFolder } from "./folders.js";
import { sampleRecord, sampleWork } from "./sample-record.js";

async function claimed(stateDirectory: string) {
  const record = sampleRecord();
  await claimName(stateDirectory, record, sampleWork());
  await writeFile(vmPaths(stateDirectory, "web").statefulDisk, "data");
  return record;
}

describe("removing a VM's folder", () => {
  it("leaves nothing, and may be repeated", async () => {
    const state = await temporaryFolder();
    const { instance } = await claimed(state);
    await removeVmDirectory(state, "web", instance);
    expect(await readdir(state)).toEqual([]);
    await removeVmDirectory(state, "web", instance);
    await removeVmDirectory(join(state, "none"), "web", instance);
  });

  it("has no effect on another instance", async () => {
    const state = await temporaryFolder();
    const record = await claimed(state);
    await removeVmDirectory(state, "web", sampleRecord().instance);
    expect(await readRecord(state, "web")).toEqual(record);
    expect(await readFile(vmPaths(state, "web").statefulDisk, "utf8")).toBe("data");
  });

  it("succeeds when half of the folder is gone", async () => {
    const state = await temporaryFolder();
    const { instance } = await claimed(state);
    await rm(vmPaths(state, "web").record);
    await removeVmDirectory(state, "web", instance);
    expect(await readdir(state)).toEqual([]);
  });

  it("goes on where a killed process stopped", async () => {
    const state = await temporaryFolder();
    const { instance } = await claimed(state);
    await mkdir(join(state, `.removing-${instance}`));
    await writeFile(join(state, `.removing-${instance}`, "stateful.img"), "");
    await mkdir(join(state, `.removing-${sampleRecord().instance}`));
    await removeVmDirectory(state, "web", instance);
    expect(await readdir(state)).toEqual([]);
  });

  it("is refused when the record is torn, and possible by name", async () => {
    const state = await temporaryFolder();
    const { instance } = await claimed(state);
    await writeFile(vmPaths(state, "web").record, "{");
    await expect(removeVmDirectory(state, "web", instance)).rejects.toMatchObject({
      code: "record-unreadable",
    });
    const child = spawn("sh", ["-c", "read line", "vmm", vmPaths(state, "web").consoleLog]);
    const other = spawn("sh", ["-c", "read line", "vmm", `${vmDirectory(state, "web")}2/console.log`]);
    onTestFinished(() => {
      child.kill("SIGKILL");
      other.kill("SIGKILL");
    });
    const [vmm, innocent] = [identify(child.pid ?? 0), identify(other.pid ?? 0)];
    await removeUnreadable(state, "web");
    expect(vmm !== undefined && isAlive(vmm)).toBe(false);
    expect(innocent !== undefined && isAlive(innocent)).toBe(true);
    expect(await readdir(state)).toEqual([]);
  });

  it("of one VM many times at once, while its name is claimed again, never removes the new one", async () => {
    const state = await temporaryFolder();
    for (let turn = 0; turn < 20; turn++) {
      const { instance } = await claimed(state);
      const next = sampleRecord({ owner: { organization: "", urn: "urn:next", program: "/" } });
      const claiming = (async () => {
        for (;;) {
          try {
            return await claimName(state, next, sampleWork());
          } catch (error) {
            expect(error).toMatchObject({ code: "name-taken" });
          }
        }
      })();
      await Promise.all([
        claiming,
        ...Array.from({ length: 6 }, () => removeVmDirectory(state, "web", instance)),
      ]);
      expect(await readRecord(state, "web")).toEqual(next);
      await removeVmDirectory(state, "web", next.instance);
      expect(await readdir(state)).toEqual([]);
    }
  });

  it.skipIf(!mayMount)("says that the file system is read-only (needs root and mount)", async () => {
    const state = await temporaryFolder();
    mountTmpfs(state, "size=1m,mode=700");
    const { instance } = await claimed(state);
    remountReadOnly(state);
    await expect(removeVmDirectory(state, "web", instance)).rejects.toThrow(/mounted read-only/);
  });
});

describe("sweeping", () => {
  it("does nothing where there is no state directory, and leaves VMs and strangers alone", async () => {
    const state = await temporaryFolder();
    await sweep(join(state, "none"));
    await claimed(state);
    for (const name of [".new-x", ".newer", ".lost", "host-id"]) await mkdir(join(state, name));
    await sweep(state);
    expect(new Set(await readdir(state))).toEqual(new Set([".lost", ".new-x", ".newer", "host-id", "web"]));
  });
});
