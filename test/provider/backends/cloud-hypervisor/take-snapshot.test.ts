import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { cloudHypervisor } from "../../../../provider/backends/cloud-hypervisor/cloud-hypervisor.js";
import { takeSnapshot } from "../../../../provider/backends/local/snapshot.js";
import { qemu } from "../../../../provider/backends/qemu/qemu.js";
import { snapshotPaths, vmPaths } from "../../../../provider/host/paths.js";
import { observeSnapshot, readSnapshot } from "../../../../provider/host/snapshots.js";
import { identify } from "../../../../provider/host/process.js";
import { mayMount, mountTmpfs, temporaryFolder } from "../../host/folders.js";
import { DISK_MIB, makeSnapshotBed, type SnapshotBed } from "./snapshot-bed.js";

const ID = "web-fedcba9876543210";

/** What is left of snapshots, taken or begun. */
async function left({ stateDirectory, record }: SnapshotBed): Promise<string[]> {
  const { snapshots } = vmPaths(stateDirectory, record.vmName);
  const { parent } = snapshotPaths(stateDirectory, ID);
  return [...(await readdir(snapshots)), ...(await readdir(parent).catch(() => []))];
}

describe("a snapshot of a VM on Cloud Hypervisor", () => {
  it("holds memory, devices, disk and what the VM was, and the guest runs on", async () => {
    const bed = await makeSnapshotBed();
    const taken = await takeSnapshot(cloudHypervisor, bed.request(ID));
    expect(await bed.calls()).toEqual(["vm.pause", "vm.snapshot", "vm.resume"]);
    expect(taken).toMatchObject({
      id: ID,
      vmName: "web",
      instance: bed.record.instance,
      boot: { statefulDiskMiB: DISK_MIB },
      vsockCid: 7,
      queuePairs: 1,
    });
    expect(await readSnapshot(bed.stateDirectory, ID)).toEqual(taken);
    expect(await observeSnapshot(bed.stateDirectory, ID)).toBe("there");
    const paths = snapshotPaths(bed.stateDirectory, ID);
    expect(await readFile(join(paths.vmm, "memory-ranges"), "utf8")).toBe("memory");
    expect(await left(bed)).toEqual([ID]);
    const disk = await stat(paths.statefulDisk);
    expect(disk.size).toBe(DISK_MIB * 1_048_576);
    expect(disk.blocks * 512, "holes stay holes").toBeLessThan(1_048_576);
    expect((await readFile(paths.statefulDisk)).subarray(0, 11).toString()).toBe("on the disk");
    expect((await stat(paths.directory)).mode & 0o077).toBe(0);
  });

  it("leaves a paused guest paused", async () => {
    const { record } = await makeSnapshotBed();
    const settings = { ...record.settings, powerState: "paused" as const };
    const paused = await makeSnapshotBed({ state: "Paused", record: { settings } });
    await takeSnapshot(cloudHypervisor, paused.request(ID));
    expect(await paused.calls()).toEqual(["vm.snapshot"]);
  });

  it("lets a guest run on that a killed call has left paused", async () => {
    const bed = await makeSnapshotBed({ state: "Paused" });
    await takeSnapshot(cloudHypervisor, bed.request(ID));
    expect(await bed.calls()).toEqual(["vm.snapshot", "vm.resume"]);
  });

  it("leaves nothing when the hypervisor refuses, and the guest runs on", async () => {
    const bed = await makeSnapshotBed({ fails: ["vm.snapshot"] });
    await expect(takeSnapshot(cloudHypervisor, bed.request(ID))).rejects.toMatchObject({
      code: "vmm-failed",
      message: expect.stringContaining("vm.snapshot fails here"),
    });
    expect(await bed.calls()).toEqual(["vm.pause", "vm.snapshot", "vm.resume"]);
    expect(await left(bed)).toEqual([]);
  });

  it("says so when the guest cannot be resumed, and leaves nothing", async () => {
    const bed = await makeSnapshotBed({ fails: ["vm.resume"] });
    await expect(takeSnapshot(cloudHypervisor, bed.request(ID))).rejects.toMatchObject({
      code: "vmm-failed",
      message: expect.stringMatching(/web is left paused: .*the next pulumi up resumes it/s),
    });
    expect(await left(bed)).toEqual([]);
  });

  it("leaves nothing when the engine ends meanwhile, and the guest runs on", async () => {
    const bed = await makeSnapshotBed();
    const engine = new AbortController();
    const taking = takeSnapshot(cloudHypervisor, bed.request(ID, { signal: engine.signal }));
    engine.abort();
    await expect(taking).rejects.toMatchObject({ code: "interrupted" });
    expect((await bed.calls()).at(-1)).toBe("vm.resume");
    expect(await left(bed)).toEqual([]);
  });

  it.each(["vm.pause", "vm.snapshot", "vm.resume"])(
    "is none when its process is killed at %s; the next one clears up, and the guest runs on",
    async (call) => {
      const bed = await makeSnapshotBed({ fails: [`hang:${call}`] });
      const taking = spawn(
        process.execPath,
        ["--import", "tsx", join(__dirname, "taking-process.ts"), JSON.stringify(bed.request(ID))],
        { stdio: "inherit" },
      );
      const ended = once(taking, "exit");
      await expect.poll(() => bed.calls(), { timeout: 20_000 }).toContain(call);
      taking.kill("SIGKILL");
      await ended;
      expect(await observeSnapshot(bed.stateDirectory, ID)).toBe("gone");
      const next = "web-0000000000000001";
      await takeSnapshot(cloudHypervisor, bed.request(next));
      expect(await left(bed)).toEqual([next]);
      expect((await bed.calls()).at(-1)).toBe("vm.resume");
    },
  );

  it.each(["vm.pause", "vm.snapshot", "vm.resume"])(
    "leaves nothing when the hypervisor is killed at %s",
    async (call) => {
      const bed = await makeSnapshotBed({ fails: [`hang:${call}`] });
      const refused = expect(takeSnapshot(cloudHypervisor, bed.request(ID))).rejects.toMatchObject({
        code: "vmm-failed",
      });
      await expect.poll(() => bed.calls(), { timeout: 20_000 }).toContain(call);
      process.kill(bed.record.vmm?.pid ?? 0, "SIGKILL");
      await refused;
      expect(await left(bed)).toEqual([]);
    },
  );

  it("waits for another one of the same VM", async () => {
    const bed = await makeSnapshotBed();
    const ids = ["web-0000000000000001", "web-0000000000000002", "web-0000000000000003"];
    await Promise.all(ids.map((id) => takeSnapshot(cloudHypervisor, bed.request(id))));
    const one = ["vm.pause", "vm.snapshot", "vm.resume"];
    expect(await bed.calls()).toEqual([...one, ...one, ...one]);
    expect((await left(bed)).toSorted()).toEqual(ids);
  });

  it("keeps the limit of the hypervisor's files where it was", async () => {
    const bed = await makeSnapshotBed();
    await takeSnapshot(cloudHypervisor, bed.request(ID));
    const limits = await readFile(`/proc/${bed.record.vmm?.pid}/limits`, "utf8");
    expect(limits).toMatch(new RegExp(`Max file size +${DISK_MIB * 1_048_576} `));
  });

  it.skipIf(!mayMount)("is refused without room for the guest's memory", async () => {
    const folder = await temporaryFolder();
    mountTmpfs(folder, "size=16m,mode=700");
    const base = await makeSnapshotBed();
    const boot = { ...base.record.boot, memoryMiB: 256 };
    const bed = await makeSnapshotBed({ folder, record: { boot } });
    await expect(takeSnapshot(cloudHypervisor, bed.request(ID))).rejects.toMatchObject({
      code: "state-directory",
      message: expect.stringMatching(/256 MiB, and the file system of .* has 1\d MiB left/),
    });
    expect(await bed.calls()).toEqual([]);
  });

  it.each([
    ["that has not proved its root", { proved: false }, /without a proof of its root/],
    ["that is off", { vmm: undefined }, /found web\/0123456789abcdef stopped/],
  ])("is refused of a VM %s", async (_, record, message) => {
    const bed = await makeSnapshotBed({ record });
    const refused = takeSnapshot(cloudHypervisor, bed.request(ID));
    await expect(refused).rejects.toMatchObject({ code: "invalid-input", input: "vmId" });
    await expect(refused).rejects.toThrow(message);
    expect(await left(bed)).toEqual([]);
  });

  it("is refused of a VM that is gone, and on a hypervisor that takes none", async () => {
    const bed = await makeSnapshotBed();
    const reference = { vmName: "web", instance: "0".repeat(16), stateDirectory: bed.stateDirectory };
    await expect(takeSnapshot(cloudHypervisor, bed.request(ID, { reference }))).rejects.toThrow(/gone/);
    await expect(takeSnapshot(qemu, bed.request(ID))).rejects.toMatchObject({ code: "not-supported" });
    expect(identify(bed.record.vmm?.pid ?? 0)).toBeDefined();
  });
});
