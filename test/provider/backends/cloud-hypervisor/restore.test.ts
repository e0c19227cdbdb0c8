import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import type { CreateRequest } from "../../../../provider/backends/backend.js";
import { CloudHypervisorApi } from "../../../../provider/backends/cloud-hypervisor/api.js";
import { cloudHypervisor } from "../../../../provider/backends/cloud-hypervisor/cloud-hypervisor.js";
import { snapshots } from "../../../../provider/backends/cloud-hypervisor/snapshot.js";
import { Restoration } from "../../../../provider/backends/local/restore.js";
import { takeSnapshot } from "../../../../provider/backends/local/snapshot.js";
import { qemu } from "../../../../provider/backends/qemu/qemu.js";
import { removeSnapshot } from "../../../../provider/host/snapshots.js";
import { snapshotPaths } from "../../../../provider/host/paths.js";
import { temporaryFolder } from "../../host/folders.js";
import { nfsSpec } from "../../boot/sample-spec.js";
import { backend, sampleLaunch } from "./sample-launch.js";
import { makeSnapshotBed, startStandIn } from "./snapshot-bed.js";

const ID = "web-fedcba9876543210";

/** A snapshot that was taken, the create that restores it, and the launch of its VM at new places. */
async function scene() {
  const bed = await makeSnapshotBed();
  await takeSnapshot(cloudHypervisor, bed.request(ID));
  const folder = await temporaryFolder();
  const sample = sampleLaunch(nfsSpec({ backend, statefulDiskMiB: 64 }));
  const paths = {
    ...sample.paths,
    controlSocket: join(folder, "vmm.sock"),
    snapshots: join(folder, "taken"),
  };
  await mkdir(paths.snapshots);
  await startStandIn(paths.controlSocket, "Running");
  const { vmName, boot, owner, settings } = bed.record;
  const request: CreateRequest = {
    vmName,
    instance: "fedcba9876543210",
    stateDirectory: bed.stateDirectory,
    owner,
    boot,
    settings,
    snapshotId: ID,
    signal: new AbortController().signal,
    notice: () => {},
  };
  // Without a tap: of those, this host's own connections are looked at.
  const { link } = bed.record.boot;
  return { bed, request, launch: { ...sample, boot: { ...sample.boot, link }, paths } };
}

describe("a restore on Cloud Hypervisor", () => {
  it("gives the hypervisor the snapshot at the places of the new VM, its devices as the guest knows them", async () => {
    const { bed, launch } = await scene();
    const scratch = await temporaryFolder();
    const from = snapshotPaths(bed.stateDirectory, ID).vmm;
    await snapshots.restore(launch, from, scratch);
    const given: unknown = JSON.parse(await readFile(`${launch.paths.controlSocket}.restored`, "utf8"));
    expect(given).toEqual({
      payload: { kernel: "/state/my-vm/kernel", cmdline: "console=ttyS0" },
      disks: [{ id: "disk0", path: "/state/my-vm/stateful.img", num_queues: 1 }],
      net: [{ id: "net0", tap: "mvm0123456789ab", mac: "02:00:00:00:00:01", num_queues: 2 }],
      serial: { mode: "File", file: "/state/my-vm/serial/console" },
      vsock: { cid: 7, socket: "/run/x.vs/s" },
      landlock_enable: true,
      landlock_rules: [{ path: launch.paths.snapshots, access: "rw" }],
    });
    expect(JSON.parse(await readFile(join(from, "config.json"), "utf8"))).toMatchObject({
      payload: { kernel: "/old/kernel" },
    });
  });

  it.each([
    ["running", ["vm.restore", "vm.resume"]],
    ["paused", ["vm.restore"]],
  ] as const)("lets a guest that is to be %s be so, and leaves no scratch", async (powerState, calls) => {
    const { bed, request, launch } = await scene();
    // The original's process counts as its VMM by the name of its socket.
    const settings = { ...request.settings, powerState };
    const restoration = await Restoration.of(cloudHypervisor, {
      ...request,
      settings,
      boot: bed.record.boot,
    }).catch((error: unknown) => error);
    expect(restoration).toMatchObject({ code: "name-taken", input: "snapshotId" });
    process.kill(bed.record.vmm?.pid ?? 0, "SIGKILL");
    await expect
      .poll(
        async () => await Restoration.of(cloudHypervisor, { ...request, settings }).catch(() => undefined),
      )
      .toBeDefined();
    const made = await Restoration.of(cloudHypervisor, { ...request, settings });
    const control = await cloudHypervisor.connect(launch.paths.controlSocket);
    await made?.letRun(launch, control, request);
    control.close();
    const told = (await readFile(`${launch.paths.controlSocket}.calls`, "utf8")).split("\n");
    expect(told.filter((name) => name === "vm.restore" || name === "vm.resume")).toEqual(calls);
    expect(await readdir(launch.paths.snapshots)).toEqual([]);
    const api = await CloudHypervisorApi.connect(launch.paths.controlSocket);
    expect((await api.info())?.state).toBe(powerState === "running" ? "Running" : "Paused");
    api.close();
  });

  it("is none where the create asks for a boot, and refused where there is none to be had", async () => {
    const { bed, request } = await scene();
    expect(await Restoration.of(cloudHypervisor, { ...request, snapshotId: undefined })).toBeUndefined();
    await expect(Restoration.of(qemu, request)).rejects.toMatchObject({ code: "not-supported" });
    const other = { ...request, boot: { ...request.boot, memoryMiB: 64 } };
    await expect(Restoration.of(cloudHypervisor, other)).rejects.toMatchObject({
      code: "invalid-input",
      input: "memoryMiB",
    });
    await removeSnapshot(bed.stateDirectory, ID);
    await expect(Restoration.of(cloudHypervisor, request)).rejects.toMatchObject({ code: "file-unusable" });
  });
});
