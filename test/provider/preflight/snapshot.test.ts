import { rm, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import type { BootConfiguration } from "../../../provider/boot/boot.js";
import { claimName } from "../../../provider/host/claim.js";
import { snapshotPaths } from "../../../provider/host/paths.js";
import { imageStamp } from "../../../provider/host/disk-copy.js";
import type { SnapshotRecord } from "../../../provider/host/snapshots.js";
import { type RestoreRequest, restoreFailures } from "../../../provider/preflight/snapshot.js";
import { temporaryFolder } from "../host/folders.js";
import { sampleRecord, sampleWork } from "../host/sample-record.js";
import { makeSnapshot, SNAPSHOT_ID } from "../host/sample-snapshot.js";

async function scene(changes: Partial<SnapshotRecord> = {}) {
  const stateDirectory = await temporaryFolder();
  const snapshot = await makeSnapshot(stateDirectory, changes);
  const request: RestoreRequest = {
    snapshotId: SNAPSHOT_ID,
    stateDirectory,
    vmName: "web",
    boot: snapshot.boot,
    powerState: "running",
    urn: "urn:pulumi:dev::shop::microvm:index:MicroVm::web",
  };
  const texts = async (other: Partial<RestoreRequest> = {}) =>
    (await restoreFailures({ ...request, ...other })).failures.map(({ input, text }) => `${input}: ${text}`);
  return { stateDirectory, snapshot, request, texts };
}

describe("a snapshot", () => {
  it("can be restored as the VM that it was taken of", async () => {
    const { request, snapshot } = await scene();
    expect(await restoreFailures(request)).toEqual({ failures: [], snapshot });
  });

  const link = sampleRecord().boot.link;
  const changes: readonly [string, Partial<BootConfiguration>, RegExp][] = [
    [
      "kernel",
      { kernel: { path: "/k", sha256: "f".repeat(64) } },
      /^kernel: expected "0+" \(string\) beside/,
    ],
    ["initramfs", { initramfs: undefined }, /^initramfs: expected "1+" .* got nothing/],
    ["number of vCPUs", { vcpus: 2 }, /^vcpus: expected 1 /],
    ["room for vCPUs", { maxVcpus: 4 }, /^maxVcpus: expected nothing .* got 4/],
    ["memory", { memoryMiB: 512 }, /^memoryMiB: expected 256 .* got 512/],
    ["disk", { statefulDiskMiB: 16 }, /^statefulDiskMiB: expected 8 /],
    ["address", { link: { ...link, guestAddress: "10.0.2.16" } }, /^ip: expected "10.0.2.15"/],
    ["network", { link: { ...link, gatewayAddress: "10.0.2.1" } }, /^network: expected "10.0.2.2/],
    [
      "root",
      { cmdline: "console=ttyS0 root=/dev/vda" },
      /^snapshotId: expected "root=\/dev\/nfs" .* got "root=\/dev\/vda"/,
    ],
  ];
  it.each(changes)("is not restored as a VM with another %s", async (_, boot, message) => {
    const { snapshot, texts } = await scene();
    expect(await texts({ boot: { ...snapshot.boot, ...boot } })).toEqual([expect.stringMatching(message)]);
  });

  it("is restored with another initramfs of ours: the guest has its own in memory", async () => {
    const { snapshot, texts } = await scene();
    const initramfs = { path: "/new", sha256: "e".repeat(64), generated: true };
    expect(await texts({ boot: { ...snapshot.boot, initramfs } })).toEqual([]);
  });

  it("is not restored under another name, or as a VM that is off", async () => {
    const { texts } = await scene();
    expect(await texts({ vmName: "shop" })).toEqual([expect.stringMatching(/^vmName: expected "web"/)]);
    expect(await texts({ powerState: "stopped" })).toEqual([
      expect.stringMatching(/^powerState: expected "running" or "paused"/),
    ]);
  });

  it("is not restored while its VM is there as another resource", async () => {
    const { stateDirectory, snapshot, request, texts } = await scene();
    await claimName(stateDirectory, sampleRecord({ instance: snapshot.instance }), sampleWork());
    // The same resource is replaced: its VM goes first.
    expect(await texts()).toEqual([]);
    expect(await restoreFailures({ ...request, urn: "urn:other" })).toMatchObject({
      failures: [{ input: "snapshotId", code: "name-taken", text: expect.stringMatching(/is still there/) }],
    });
  });

  it("is not restored over a root disk that has changed", async () => {
    const folder = await temporaryFolder();
    const rootfs = join(folder, "root.img");
    await writeFile(rootfs, "root");
    const boot = { ...sampleRecord().boot, root: { type: "disk" as const, rootfs } };
    const { texts } = await scene({ boot, rootfsStamp: await imageStamp(rootfs) });
    expect(await texts()).toEqual([]);
    await utimes(rootfs, 1, 1);
    expect(await texts()).toEqual([expect.stringMatching(/^rootfs: .* found it changed/)]);
  });

  it.each(["web", "../web-fedcba9876543210", "web-fedcba987654321", "/etc/passwd"])(
    "is not looked for under a text that is no id: %s",
    async (snapshotId) => {
      const { texts } = await scene();
      expect(await texts({ snapshotId })).toEqual([
        expect.stringMatching(/expected the id of a MicroVmSnap/),
      ]);
    },
  );

  it("is told of when it is gone, torn, or lacks a file", async () => {
    const { stateDirectory, texts } = await scene();
    const paths = snapshotPaths(stateDirectory, SNAPSHOT_ID);
    expect(await texts({ snapshotId: "web-0000000000000000" })).toEqual([
      expect.stringMatching(/^snapshotId: expected a snapshot on this host, found none/),
    ]);
    await rm(join(paths.vmm, "memory-ranges"));
    expect(await texts()).toEqual([expect.stringMatching(/a file of the snapshot .* is missing/)]);
    await writeFile(paths.record, "{");
    expect(await texts()).toEqual([expect.stringMatching(/snapshot.json is torn/)]);
  });
});
