/** Root file systems that the program serves itself, with the real engine, real servers and real guests. */

import { spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readChanges } from "../../provider/exports/changes.js";
import { ganeshaServer } from "../../provider/exports/ganesha.js";
import { exportPaths } from "../../provider/exports/paths.js";
import { endProcess, identify } from "../../provider/host/process.js";
import { readRecord } from "../../provider/host/record.js";
import { closedFiles, lostFiles, makeWritingGuest } from "../faults/guest.js";
import { Stack } from "../lab/engine.js";
import { makeGuestRoot } from "../lab/guest.js";
import { whyNoAgentFs } from "../lab/programs.js";
import { expectSuccess, suiteName, textOf, theVm, type Vm, vmms, whyNoGuest } from "./scene.js";

const kernel = () => process.env["MICROVM_LAB_NFS_KERNEL"] || (process.env["MICROVM_LAB_KERNEL"] ?? "");

async function stackOf(example: string, base: string): Promise<Stack> {
  return await Stack.create({
    from: resolve(__dirname, "../../examples", example),
    program: {},
    config: { base, "microvm:kernel": kernel() },
  });
}

const nameOf = (urn: string) => urn.split("::").at(-1);

/** Ends the server of a stack's export at once, as a crash would. */
async function killServer(stack: Stack, type: string): Promise<void> {
  const [resource] = await stack.resources(type);
  const server = identify(Number(resource?.outputs?.["pid"]));
  if (server === undefined) throw new Error("no server runs");
  await endProcess(server, 0);
}

/** Waits until a preview plans another VM for one whose server is up and does not know its root any more; a refresh then tells why. */
async function untilStale(stack: Stack, { urn }: Vm): Promise<void> {
  const vmOnly = ["--target", urn];
  await expect
    .poll(async () => (await stack.previewSteps(...vmOnly)).map(({ replaceReasons }) => replaceReasons), {
      timeout: 30_000,
    })
    .toContainEqual(["observed"]);
  expectSuccess(await stack.refresh(...vmOnly));
  expect((await theVm(stack)).outputs["rootEvidence"]).toBe("stale");
}

/** Holds that another VM stands in the place of one: it has proved its root, and of the first neither process nor folder is left. */
async function expectAnother(stack: Stack, before: Vm): Promise<Vm> {
  const after = await theVm(stack);
  expect(after.instance).not.toBe(before.instance);
  expect(after.outputs).toMatchObject({ state: "running", rootEvidence: "proved" });
  expect(await vmms(stack)).toEqual([after.pid]);
  const folders = (await readdir(stack.stateDirectory)).filter((name) => !/^(?:\..*|host-id)$/.test(name));
  expect(folders).toEqual([after.vmName]);
  expect(await readRecord(stack.stateDirectory, after.vmName)).toMatchObject({ instance: after.instance });
  return after;
}

describe.skipIf(whyNoGuest() !== undefined)(suiteName("examples/nfs-export", whyNoGuest()), () => {
  let folder: string;
  let stack: Stack;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "lab-export-"));
    await makeWritingGuest(join(folder, "root"));
    stack = await stackOf("nfs-export", join(folder, "root"));
  });
  afterAll(async () => {
    await stack.dispose();
    await rm(folder, { recursive: true, force: true });
  });

  it("shows before anything is there the command line that boots, and boots it", async () => {
    const steps = await stack.previewSteps();
    const planned = steps.find(({ newState }) => newState?.type === "microvm:index:MicroVm")?.newState
      ?.inputs;
    expect(planned?.["cmdline"]).toContain(`nfsroot=10.0.2.2:${join(folder, "root")},nfsvers=3,tcp`);
    const up = await stack.up();
    expectSuccess(up);
    expect(await stack.outputs()).toMatchObject({ cmdline: planned?.["cmdline"] });
    expectSuccess(await stack.up("--refresh", "--expect-no-changes"));
  });

  it("is served again by the next up when the server was killed: the guest waits, goes on, and has lost nothing", async () => {
    const before = await theVm(stack);
    const words = () => textOf(String(before.outputs["consoleLog"]));
    await expect.poll(async () => closedFiles(await words()).length, { timeout: 30_000 }).toBeGreaterThan(3);
    await killServer(stack, "microvm:index:NfsExport");
    const killedAt = performance.now();
    const preview = await stack.preview();
    expectSuccess(preview);
    expect(preview.output).toMatch(/~ observed *: "running" => "stopped"/);
    // Away for 10 s in all, in the middle of the guest's writes.
    await delay(Math.max(0, 10_000 - (performance.now() - killedAt)));
    const closedBefore = closedFiles(await words()).length;
    const up = await stack.up();
    expectSuccess(up);
    expect(up.output).toContain("1 updated");
    await expect
      .poll(async () => closedFiles(await words()).length, { timeout: 60_000 })
      .toBeGreaterThan(closedBefore + 3);
    expect((await theVm(stack)).outputs).toMatchObject({ pid: before.pid, rootEvidence: "proved" });
    expect(await lostFiles(join(folder, "root"), closedFiles(await words()))).toEqual([]);
    expectSuccess(await stack.up("--refresh", "--expect-no-changes"));
  });

  it("sees a root whose folder was made anew under a server of a person's own, and makes another VM; then a server for the new folder", async () => {
    const before = await theVm(stack);
    const [files] = await stack.resources("microvm:index:NfsExport");
    await killServer(stack, "microvm:index:NfsExport");
    await rename(join(folder, "root"), join(folder, "old"));
    await makeWritingGuest(join(folder, "root"));
    await rm(join(folder, "old"), { recursive: true });
    // The same configuration and ports, and handles that its file system does not know any more.
    const [name = ""] = files?.id?.split("/") ?? [];
    const { file, args } = ganeshaServer(exportPaths(stack.stateDirectory, name));
    const own = spawn(file, args, { stdio: "ignore" });
    const vmOnly = ["--target", before.urn];
    try {
      await untilStale(stack, before);
      expectSuccess(await stack.up(...vmOnly));
      const after = await expectAnother(stack, before);
      await expect
        .poll(async () => closedFiles(await textOf(String(after.outputs["consoleLog"]))).length, {
          timeout: 30_000,
        })
        .toBeGreaterThan(0);
      expect(await textOf(join(folder, "root/var/boots.txt"))).toContain(`${after.vmName}: `);
      const steps = (await stack.previewSteps()).filter(({ op }) => op === "replace");
      expect(steps.map(({ urn }) => nameOf(urn))).toEqual(["files", "vm"]);
      expect(steps[0]?.replaceReasons).toEqual(["observed"]);
    } finally {
      own.kill("SIGKILL");
    }
  });

  it("leaves nothing when it is destroyed, and the folder as it is", async () => {
    expectSuccess(await stack.destroy());
    expect(await stack.leftovers()).toEqual([]);
    expect(await readFile(join(folder, "root/var/boots.txt"), "utf8")).toContain("(nfs)");
  });
});

/** Length in bytes of the file to which the guest adds a line with each boot. */
async function bootsInDatabase(databasePath: string): Promise<number> {
  const { changes } = await readChanges(databasePath);
  return changes.find(({ path }) => path === "/var/boots.txt")?.sizeBytes ?? 0;
}

const noAgentFs = whyNoGuest() ?? whyNoAgentFs();

describe.skipIf(noAgentFs !== undefined)(suiteName("examples/agentfs", noAgentFs), () => {
  let folder: string;
  let stack: Stack;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "lab-agentfs-"));
    await makeGuestRoot(join(folder, "base"), "complete");
    stack = await stackOf("agentfs", join(folder, "base"));
  });
  afterAll(async () => {
    await stack.dispose();
    await rm(folder, { recursive: true, force: true });
  });

  const untilWritten = (more: object) =>
    expect
      .poll(
        async () => {
          expectSuccess(await stack.up());
          return (await stack.outputs())["changes"];
        },
        { timeout: 60_000, interval: 1000 },
      )
      .toMatchObject({ baseDirectory: join(folder, "base"), changes: expect.arrayContaining([more]) });

  it("boots from a database, leaves the base as it is, and tells what the guest has written there", async () => {
    const steps = await stack.previewSteps();
    const planned = steps.find(({ newState }) => newState?.type === "microvm:index:MicroVm")?.newState
      ?.inputs;
    expect(planned?.["cmdline"]).toContain("nfsroot=10.0.2.2:/,nfsvers=3,tcp");
    expectSuccess(await stack.up());
    expect(await stack.outputs()).toMatchObject({ cmdline: planned?.["cmdline"] });
    await untilWritten(expect.objectContaining({ path: "/var/boots.txt", change: "added", kind: "file" }));
    expect(await textOf(join(folder, "base/var/boots.txt"))).toBe("");
  });

  it("is made anew with its VM when its server has died, and the guest finds what it had written", async () => {
    const before = await theVm(stack);
    await killServer(stack, "microvm:index:AgentFs");
    const steps = (await stack.previewSteps()).filter(({ op }) => op === "replace");
    expect(steps.map(({ urn }) => nameOf(urn))).toEqual(["fs", "vm"]);
    expect(steps[0]?.replaceReasons).toEqual(["observed"]);
    expectSuccess(await stack.up());
    const after = await expectAnother(stack, before);
    await expect
      .poll(() => textOf(String(after.outputs["consoleLog"])), { timeout: 30_000 })
      .toContain("this is boot 2");
  });

  it("sees a root whose server was started anew behind its back: a refresh calls it stale, and an up makes server and VM anew, which proves its root", async () => {
    const before = await theVm(stack);
    const [fs] = await stack.resources("microvm:index:AgentFs");
    const { databasePath, nfsPort, pid } = fs?.outputs ?? {};
    expect(before.outputs["rootEvidence"]).toBe("proved");
    await endProcess(identify(Number(pid)) ?? { pid: 0, startTime: "", bootId: "" }, 0);
    // As a person would who starts the server by hand.
    const words = ["serve", "nfs", String(databasePath), "--port", String(nfsPort)];
    const own = spawn(process.env["AGENTFS"] || "agentfs", words, { stdio: "ignore" });
    try {
      await untilStale(stack, before);
    } finally {
      own.kill("SIGKILL");
    }
    const written = await bootsInDatabase(String(databasePath));
    expectSuccess(await stack.up());
    const after = await expectAnother(stack, before);
    await expect
      .poll(() => textOf(String(after.outputs["consoleLog"])), { timeout: 30_000 })
      .toContain("this is boot 3");
    expect(await bootsInDatabase(String(databasePath))).toBeGreaterThan(written);
    const steps = await stack.previewSteps();
    expect(steps.map(({ op }) => op)).toEqual(steps.map(() => "same"));
    expectSuccess(await stack.destroy());
    expect(await stack.leftovers()).toEqual([]);
  });
});
