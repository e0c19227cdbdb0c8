import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { claimName } from "../../provider/host/claim.js";
import { snapshotPaths } from "../../provider/host/paths.js";
import { identify } from "../../provider/host/process.js";
import { writeRecord } from "../../provider/host/record.js";
import { defaultStateDirectory, readHostId } from "../../provider/host/state-directory.js";
import type { Values } from "../../provider/plan/fields.js";
import { check, create, delete as remove, diff, read } from "../../provider/snapshot.js";
import { UNKNOWN } from "../../provider/spec/validate.js";
import { makeSnapshotBed } from "./backends/cloud-hypervisor/snapshot-bed.js";
import { useBed } from "./bed.js";
import { sampleRecord, sampleWork } from "./host/sample-record.js";
import { makeSnapshot, SNAPSHOT_ID } from "./host/sample-snapshot.js";

const bed = useBed();

const VM_ID = "web/0123456789abcdef";
const OWNER = {
  organization: "organization",
  urn: "urn:pulumi:dev::shop::microvm:index:MicroVmSnapshot::web",
  program: "/srv/shop",
};

/** What program and SDK give. */
function newsOf(changes: Values = {}): Values {
  return {
    vmId: VM_ID,
    stateDirectory: defaultStateDirectory(),
    owner: OWNER,
    __provider: 'exports.handler=()=>require("pulumi-microvm/snapshot")',
    ...changes,
  };
}

/** Outputs of a snapshot that is there. */
async function outputs(): Promise<Values> {
  await makeSnapshot(defaultStateDirectory());
  const { owner: _, ...kept } = newsOf();
  return { ...kept, snapshotId: SNAPSHOT_ID, hostId: await readHostId(defaultStateDirectory()) };
}

const reasons = async (olds: Values, news: Values) =>
  (await check(olds, news)).failures.map(({ reason }) => reason);

describe("check of a snapshot", () => {
  it("takes what the SDK gives, and what is not known yet", async () => {
    expect(await check({}, newsOf())).toEqual({
      inputs: { vmId: VM_ID, stateDirectory: defaultStateDirectory(), owner: OWNER },
      failures: [],
    });
    expect((await check({}, newsOf({ vmId: UNKNOWN }))).inputs["vmId"]).toBe(UNKNOWN);
  });

  it.each([
    [{ vmId: "web" }, /^vmId: expected the id of a MicroVm, .* got "web"/],
    [{ vmId: "../x/0123456789abcdef" }, /^vmId: expected the id of a MicroVm/],
    [{ vmId: undefined }, /^vmId: expected .* got nothing/],
    [{ trigger: 5 }, /^trigger: expected a text/],
    [{ trigger: "hush", secretInputs: ["trigger"] }, /^trigger: a secret cannot be used here/],
    [{ stateDirectory: "state" }, /^stateDirectory: expected the absolute path/],
  ])("refuses %j", async (changes, message) => {
    expect(await reasons({}, newsOf(changes))).toEqual([expect.stringMatching(message)]);
  });

  it("refuses a VM on a back end that takes none, in the preview", async () => {
    await makeSnapshot(defaultStateDirectory());
    await claimName(defaultStateDirectory(), sampleRecord({ instance: "0123456789abcdef" }), sampleWork());
    expect(await reasons({}, newsOf())).toEqual([
      expect.stringMatching(
        /^vmId: expected a VM of the back end "cloud-hypervisor".*"qemu" \[not-supported\]/,
      ),
    ]);
  });

  it("keeps the snapshot of a VM that was made anew, and says so", async () => {
    const { inputs: olds } = await check({}, newsOf());
    const later = newsOf({ vmId: "web/ffffffffffffffff" });
    expect((await check(olds, later)).inputs).toEqual(olds);
    expect(bed.lines).toEqual([expect.stringMatching(/^web: keeps the snapshot of web\/0123456789abcdef/)]);
    const anew = await check(olds, { ...later, trigger: "2" });
    expect(anew.inputs).toMatchObject({ vmId: "web/ffffffffffffffff", trigger: "2" });
  });
});

describe("diff of a snapshot", () => {
  const nothing = { changes: false, replaces: [], deleteBeforeReplace: false };

  it("is nothing while it is there, and confirms it", async () => {
    const olds = await outputs();
    expect(await diff(SNAPSHOT_ID, olds, newsOf())).toEqual(nothing);
    expect(existsSync(snapshotPaths(defaultStateDirectory(), SNAPSHOT_ID).confirmed)).toBe(true);
  });

  it("is a replace by another trigger", async () => {
    const olds = await outputs();
    expect(await diff(SNAPSHOT_ID, olds, newsOf({ trigger: "2" }))).toMatchObject({ replaces: ["trigger"] });
  });

  it("is a replace when it is lost or lacks a file", async () => {
    const olds = await outputs();
    await rm(snapshotPaths(defaultStateDirectory(), SNAPSHOT_ID).statefulDisk);
    expect(await diff(SNAPSHOT_ID, olds, newsOf())).toMatchObject({ replaces: ["observed"] });
    await remove(SNAPSHOT_ID, olds);
    expect(await diff(SNAPSHOT_ID, olds, newsOf())).toMatchObject({ replaces: ["observed"] });
  });

  it("says nothing of one on another host", async () => {
    const olds = { ...(await outputs()), hostId: "f".repeat(32) };
    expect(await diff(SNAPSHOT_ID, olds, newsOf())).toEqual(nothing);
    expect(bed.lines).toEqual([expect.stringMatching(/not checked: .* of host f+/)]);
  });
});

describe("read and delete of a snapshot", () => {
  it("tell what is there, and take what is gone as gone", async () => {
    const olds = await outputs();
    expect(await read(SNAPSHOT_ID, olds)).toMatchObject({
      id: SNAPSHOT_ID,
      props: { vmId: VM_ID, vmName: "web", takenAt: "2026-11-24T08:00:00.000Z", observed: "there" },
    });
    await writeFile(snapshotPaths(defaultStateDirectory(), SNAPSHOT_ID).record, "{");
    expect(await read(SNAPSHOT_ID, olds)).toMatchObject({ props: { observed: "damaged" } });
    await remove(SNAPSHOT_ID, olds);
    await remove(SNAPSHOT_ID, olds);
    expect(await read(SNAPSHOT_ID, olds)).toEqual({});
    expect(await readdir(defaultStateDirectory())).toEqual(["host-id"]);
  });

  it("are an error on another host", async () => {
    const olds = { ...(await outputs()), hostId: "f".repeat(32) };
    await expect(read(SNAPSHOT_ID, olds)).rejects.toMatchObject({ code: "other-host" });
    await expect(remove(SNAPSHOT_ID, olds)).rejects.toMatchObject({ code: "other-host" });
    expect(existsSync(snapshotPaths(defaultStateDirectory(), SNAPSHOT_ID).record)).toBe(true);
  });

  it("never leave the state directory", async () => {
    const olds = await outputs();
    await expect(remove("../../etc", olds)).rejects.toMatchObject({ code: "invalid-input" });
  });
});

describe("create of a snapshot", () => {
  it("takes it, and first removes what a killed up has taken and nobody knows of", async () => {
    const { stateDirectory } = await makeSnapshotBed();
    const dead = spawn("true");
    const creator = identify(dead.pid ?? 0) ?? { pid: 1, startTime: "0", bootId: "0" };
    await once(dead, "exit");
    await makeSnapshot(stateDirectory, { owner: OWNER, creator });
    const other = { ...OWNER, urn: `${OWNER.urn}2` };
    await makeSnapshot(stateDirectory, { id: "web-1111111111111111", owner: other, creator });
    await makeSnapshot(stateDirectory, { id: "web-2222222222222222", owner: OWNER });
    await makeSnapshot(stateDirectory, { id: "web-3333333333333333", owner: OWNER, creator });
    await writeFile(snapshotPaths(stateDirectory, "web-3333333333333333").confirmed, "");
    const { inputs } = await check({}, newsOf({ stateDirectory }));
    const { id, outs } = await create(inputs);
    expect(outs).toMatchObject({ snapshotId: id, vmId: VM_ID, vmName: "web", observed: "there" });
    expect(outs).not.toHaveProperty("owner");
    const there = await readdir(join(stateDirectory, ".snapshots"));
    const kept = ["web-1111111111111111", "web-2222222222222222", "web-3333333333333333"];
    expect(there.toSorted()).toEqual([...kept, id].toSorted());
    expect(bed.lines).toContainEqual(
      expect.stringContaining(`${SNAPSHOT_ID} of an interrupted up is removed`),
    );
    expect(await diff(id, outs, inputs)).toMatchObject({ changes: false });
  });

  it("is refused of a VM that is gone, and of one on QEMU", async () => {
    await expect(create(newsOf())).rejects.toMatchObject({ input: "vmId" });
    const { stateDirectory, record } = await makeSnapshotBed();
    const { backend } = sampleRecord().settings;
    await writeRecord(stateDirectory, { ...record, settings: { ...record.settings, backend } });
    const refused = create(newsOf({ stateDirectory }));
    await expect(refused).rejects.toMatchObject({ code: "not-supported", input: "vmId" });
  });
});
