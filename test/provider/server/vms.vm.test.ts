/** The life of VMs through the server, by a real QEMU; the guests say what a Linux guest would say, and no more. */

import { execFileSync } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { vmPaths } from "../../../provider/host/paths.js";
import { endProcess, findByArgument, type ProcessIdentity } from "../../../provider/host/process.js";
import { readRecord, writeRecord } from "../../../provider/host/record.js";
import { isOnPath } from "../../lab/programs.js";
import { type Answer, messageIn, ServerBed } from "./bed.js";

const missing = isOnPath("qemu-system-x86_64") ? "" : " (skipped: qemu-system-x86_64 is not installed)";

interface Listed {
  readonly vmName: string;
  readonly status: string;
  readonly instance: string;
  readonly portForwards: readonly { readonly hostPort: string; readonly guestPort: string }[];
}

function processesOf(instance: unknown): readonly ProcessIdentity[] {
  return findByArgument(`/${String(instance)}.sock`);
}

describe.skipIf(missing !== "")(`VMs of the server${missing}`, () => {
  let bed: ServerBed;
  beforeAll(async () => {
    bed = await ServerBed.open();
    await bed.configure({ port_forwards: [{ port: "5901", description: "gui" }] });
    await bed.start();
  });
  afterAll(async () => await bed.close());

  const vms = async (): Promise<readonly Listed[]> =>
    (await bed.call("GET", "/v1/vms")).body["vms"] as readonly Listed[];

  it("says what it would boot, and makes nothing", async () => {
    const answer = await bed.call("POST", "/v1/vms?dryRun=true", {
      body: { vmName: "dry", entryPoint: "/bin/x" },
    });
    expect(answer).toMatchObject({
      status: 200,
      body: {
        vmName: "dry",
        cmdline: expect.stringMatching(
          /^console=ttyS0 root=\/dev\/vda ro .* vm_name="dry" entry_point="\/bin\/x" panic=-1$/,
        ),
        disks: [{ path: join(bed.folder, "root.img"), readonly: true, numQueues: 1 }],
      },
    });
    const refused = await bed.call("POST", "/v1/vms?dryRun=true", { body: { kernel: "/nonexistent" } });
    expect(refused.status).toBe(400);
    expect(messageIn(refused)).toMatch(/^kernel: there is no file \/nonexistent.*\[file-unusable\]/);
    expect(await vms()).toEqual([]);
    expect(await readRecord(bed.stateDirectory, "dry")).toBeUndefined();
  });

  it("says what an NFS root lacks, in the words of the API", async () => {
    const server = await bed.call("POST", "/v1/vms", {
      body: { useNfsRoot: true, nfsServer: "", nfsPort: 1 },
    });
    expect([server.status, messageIn(server)]).toEqual([
      400,
      expect.stringContaining("NFS server address is required"),
    ]);
    const port = await bed.call("POST", "/v1/vms", {
      body: { useNfsRoot: true, nfsServer: "127.0.0.1", nfsPort: 0 },
    });
    expect([port.status, messageIn(port)]).toEqual([
      400,
      expect.stringContaining("NFS server port is required"),
    ]);
    expect(port.body).toMatchObject({ error: { code: "invalid-input" } });
  });

  let first: Answer;

  it("boots a VM, proves its root, and shows it", async () => {
    first = await bed.post("one", "complete");
    expect(first).toMatchObject({
      status: 200,
      body: {
        vmName: "one",
        status: "RUNNING",
        ip: "10.0.2.15/24",
        rootEvidence: "proved",
        portForwards: [
          { hostPort: expect.stringMatching(/^2[0-9]{4}$/), guestPort: "5901", description: "gui" },
          { hostPort: expect.stringMatching(/^2[0-9]{4}$/), guestPort: "4031", description: "cmdserver" },
        ],
      },
    });
    expect((await bed.call("GET", "/v1/vms/one")).body).toEqual(first.body);
    expect((await bed.call("GET", "/v1/vms")).body).toEqual({ vms: [first.body] });
    expect(processesOf(first.body["instance"])).toHaveLength(1);
    expect((await bed.call("GET", "/metrics")).text).toMatch(/microvm_vms\{state="running"\} 1\n/);
  });

  it("gives a name to one of 16 requests at once, and another request of that name 409", async () => {
    const answers = await Promise.all(Array.from({ length: 16 }, () => bed.post("race")));
    const statuses = answers.map(({ status }) => status);
    expect(statuses.toSorted((a, b) => a - b)).toEqual([200, ...Array.from({ length: 15 }, () => 409)]);
    expect(answers.filter(({ status }) => status === 409).map(messageIn)).toContainEqual(
      expect.stringMatching(/race is being made by another request/),
    );
    expect(findByArgument(vmPaths(bed.stateDirectory, "race").directory)).toHaveLength(1);
    const again = await bed.post("race");
    expect([again.status, messageIn(again)]).toEqual([409, expect.stringContaining("exists already")]);
    expect(again.body).toMatchObject({ error: { code: "name-taken" } });
  });

  it("tells why a guest did not come up, and leaves nothing", async () => {
    const answer = await bed.post("panics", "exits");
    expect(answer.status).toBe(500);
    expect(answer.body).toMatchObject({ error: { code: "boot-failed" } });
    expect(messageIn(answer)).toContain(
      "| [    0.300000] Kernel panic - not syncing: Attempted to kill init!",
    );
    expect((await bed.call("GET", "/v1/vms/panics")).status).toBe(404);
    expect((await bed.call("GET", "/metrics")).text).toMatch(
      /microvm_create_failures_total\{code="boot-failed"\} 1\n/,
    );
  });

  it("undoes a VM that is deleted while it is being made", async () => {
    const made = bed.post("slow", "mute");
    await expect
      .poll(async () => (await vms()).map(({ vmName, status }) => `${vmName} ${status}`))
      .toContain("slow CREATING");
    await expect.poll(async () => await readRecord(bed.stateDirectory, "slow")).toBeDefined();
    expect((await bed.call("PATCH", "/v1/vms/slow", { body: { status: "paused" } })).status).toBe(409);
    expect(await bed.call("DELETE", "/v1/vms/slow")).toMatchObject({ status: 200, body: { success: true } });
    expect(await made).toMatchObject({ status: 409 });
    expect(findByArgument(vmPaths(bed.stateDirectory, "slow").directory)).toEqual([]);
    expect((await bed.call("GET", "/v1/vms/slow")).status).toBe(404);
  });

  it("pauses, resumes and stops", async () => {
    const patch = async (status: string) => await bed.call("PATCH", "/v1/vms/one", { body: { status } });
    const state = async () => (await bed.call("GET", "/v1/vms/one")).body["status"];
    expect(await patch("paused")).toMatchObject({
      status: 200,
      body: { success: true, message: "one is paused" },
    });
    expect(await state()).toBe("PAUSED");
    expect((await patch("resume")).body).toEqual({ success: true, message: "one is running" });
    expect(await state()).toBe("RUNNING");
    expect((await patch("stopped")).status).toBe(200);
    expect(await state()).toBe("STOPPED");
    expect((await patch("stopped")).status).toBe(200);
    const paused = await patch("paused");
    expect([paused.status, messageIn(paused)]).toEqual([409, expect.stringContaining("only a VM that runs")]);
    expect((await patch("off")).status).toBe(400);
    expect((await patch("resume")).body["message"]).toBe("one was off and has been started");
    expect((await bed.call("GET", "/v1/vms/one")).body).toEqual(first.body);
  });

  it("shows within a quarter of a second that a VM has died", async () => {
    const before = (await vms()).find(({ vmName }) => vmName === "race");
    expect(before?.status).toBe("RUNNING");
    for (const vmm of processesOf(before?.instance)) await endProcess(vmm, 0);
    await new Promise((resolve) => setTimeout(resolve, 250));
    expect((await vms()).find(({ vmName }) => vmName === "race")?.status).toBe("STOPPED");
  });

  it("takes no snapshot where the hypervisor has none", async () => {
    const answer = await bed.call("POST", "/v1/vms/one/snapshots", { body: { snapshotId: "s" } });
    expect([answer.status, messageIn(answer)]).toEqual([400, expect.stringContaining("cloud-hypervisor")]);
    const restored = await bed.call("POST", "/v1/vms", { body: { vmName: "two", snapshotId: "s" } });
    expect([restored.status, messageIn(restored)]).toEqual([404, expect.stringContaining("has no snapshot")]);
  });

  it("knows nobody else's VMs in the same state directory", async () => {
    const { stateDirectory } = bed;
    const record = await readRecord(stateDirectory, "race");
    if (record === undefined) throw new Error("there is no record");
    await writeRecord(stateDirectory, {
      ...record,
      owner: { ...record.owner, organization: "organization" },
    });
    for (const [method, body] of [["GET"], ["DELETE"], ["PATCH", { status: "stopped" }]] as const) {
      expect((await bed.call(method, "/v1/vms/race", { body })).status).toBe(404);
    }
    expect((await vms()).map(({ vmName }) => vmName)).toEqual(["one"]);
    expect((await bed.post("race")).status).toBe(409);
    await writeRecord(stateDirectory, record);
  });

  it("serves its VMs as before when it has started anew, and undoes what was half-made", async () => {
    const { stateDirectory } = bed;
    const record = await readRecord(stateDirectory, "one");
    if (record === undefined) throw new Error("there is no record");
    await bed.stop();
    expect(processesOf(record.instance)).toHaveLength(1);
    // As a server leaves it that was killed in the middle of a create.
    const instance = "0123456789abcdef";
    const half = vmPaths(stateDirectory, "half");
    execFileSync("mkdir", ["-m", "700", half.directory]);
    const creator = { ...record.creator, startTime: "1" };
    const controlSocket = record.controlSocket.replace(record.instance, instance);
    const text = JSON.stringify({
      ...record,
      vmName: "half",
      instance,
      phase: "prepared",
      creator,
      controlSocket,
      vmm: undefined,
    });
    await writeFile(half.record, text);
    await bed.start();
    expect((await bed.call("GET", "/v1/vms/one")).body).toEqual(first.body);
    expect((await bed.call("GET", "/v1/vms/half")).status).toBe(404);
    expect(bed.log.findLast((line) => line.includes("took up"))).toContain('"undone":["half"]');
    expect((await bed.call("PATCH", "/v1/vms/one", { body: { status: "paused" } })).status).toBe(200);
  });

  it("lets requests end when it is stopped, and undoes what takes too long", async () => {
    await bed.stop();
    await bed.start({ stopTimeoutSeconds: 1 });
    const ask = async () => await bed.call("POST", "/v1/vms/one/cmd", { body: { cmd: "true" } });
    const paused = await ask();
    expect([paused.status, messageIn(paused)]).toEqual([409, expect.stringContaining("one is PAUSED")]);
    await bed.call("PATCH", "/v1/vms/one", { body: { status: "resume" } });
    // Nobody answers in this guest, which it is given 10 s to change.
    const asked = ask();
    const made = bed.post("begun", "mute");
    await expect.poll(async () => await readRecord(bed.stateDirectory, "begun")).toBeDefined();
    await bed.stop();
    for (const answer of [await made, await asked]) {
      expect(answer).toMatchObject({ status: 503, body: { error: { code: "interrupted" } } });
    }
    expect(findByArgument(vmPaths(bed.stateDirectory, "begun").directory)).toEqual([]);
    await bed.start();
    expect((await vms()).map(({ vmName, status }) => `${vmName} ${status}`)).toEqual([
      "one RUNNING",
      "race STOPPED",
    ]);
  });

  it("deletes one, and all, and says in its log who asked", async () => {
    expect(await bed.call("DELETE", "/v1/vms/one")).toMatchObject({ status: 200, body: { success: true } });
    expect((await bed.call("DELETE", "/v1/vms/one")).status).toBe(404);
    await bed.post("last");
    const torn = vmPaths(bed.stateDirectory, "torn");
    await mkdir(torn.directory, { mode: 0o700 });
    await writeFile(torn.record, "{");
    const refused = await bed.call("DELETE", "/v1/vms");
    expect(refused.status).toBe(500);
    const left =
      /^removed 2 VMs; these are left:\ntorn: .*vm\.json is torn: .*`microvm rm torn` removes the VM/;
    expect(messageIn(refused)).toMatch(left);
    expect(bed.log.some((line) => line.includes("removed 2 VMs, and 1 not"))).toBe(true);
    expect(bed.log.some((line) => line.includes("torn: ") && line.includes("these are left"))).toBe(true);
    expect(await vms()).toEqual([{ vmName: "torn", status: "UNREACHABLE" }]);
    await rm(torn.directory, { recursive: true });
    expect(await bed.call("DELETE", "/v1/vms")).toMatchObject({ status: 200, body: { success: true } });
    // Without the server's doing it is seen a little later.
    await expect.poll(vms).toEqual([]);
    expect(bed.log.find((line) => line.includes("removal of all VMs"))).toContain('"caller":"127.0.0.1"');
    expect(findByArgument(`${bed.stateDirectory}/`)).toEqual([]);
  });
});
