/** Root file systems that the program serves itself, with the real engine, real servers and real guests. */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { endProcess, identify } from "../../provider/host/process.js";
import { closedFiles, lostFiles, makeWritingGuest } from "../faults/guest.js";
import { Stack } from "../lab/engine.js";
import { makeGuestRoot } from "../lab/guest.js";
import { whyNoAgentFs } from "../lab/programs.js";
import { expectSuccess, suiteName, textOf, theVm, whyNoGuest } from "./scene.js";

const kernel = () => process.env["MICROVM_LAB_NFS_KERNEL"] || (process.env["MICROVM_LAB_KERNEL"] ?? "");

async function stackOf(example: string, base: string): Promise<Stack> {
  return await Stack.create({
    from: resolve(__dirname, "../../examples", example),
    program: {},
    config: { base, "microvm:kernel": kernel() },
  });
}

/** Ends the server of a stack's export at once, as a crash would. */
async function killServer(stack: Stack, type: string): Promise<void> {
  const [resource] = await stack.resources(type);
  const server = identify(Number(resource?.outputs?.["pid"]));
  if (server === undefined) throw new Error("no server runs");
  await endProcess(server, 0);
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

  it("leaves nothing when it is destroyed, and the folder as it is", async () => {
    expectSuccess(await stack.destroy());
    expect(await stack.leftovers()).toEqual([]);
    expect(await readFile(join(folder, "root/var/boots.txt"), "utf8")).toContain("(nfs)");
  });
});

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
    expect(steps.map(({ urn }) => urn.split("::").at(-1))).toEqual(["fs", "vm"]);
    expect(steps[0]?.replaceReasons).toEqual(["observed"]);
    expectSuccess(await stack.up());
    const after = await theVm(stack);
    expect(after.instance).not.toBe(before.instance);
    await expect
      .poll(() => textOf(String(after.outputs["consoleLog"])), { timeout: 30_000 })
      .toContain("this is boot 2");
  });

  it("sees a root whose server was started anew behind its back: a refresh calls it stale, and a preview plans another VM", async () => {
    const before = await theVm(stack);
    const [fs] = await stack.resources("microvm:index:AgentFs");
    const { databasePath, nfsPort, pid } = fs?.outputs ?? {};
    expect(before.outputs["rootEvidence"]).toBe("proved");
    await endProcess(identify(Number(pid)) ?? { pid: 0, startTime: "", bootId: "" }, 0);
    // As a person would who starts the server by hand.
    const { spawn } = await import("node:child_process");
    const words = ["serve", "nfs", String(databasePath), "--port", String(nfsPort)];
    const own = spawn(process.env["AGENTFS"] || "agentfs", words, { stdio: "ignore" });
    try {
      const vmOnly = ["--target", before.urn];
      await expect
        .poll(async () => (await stack.previewSteps(...vmOnly)).map(({ replaceReasons }) => replaceReasons), {
          timeout: 30_000,
        })
        .toContainEqual(["observed"]);
      expectSuccess(await stack.refresh(...vmOnly));
      expect((await theVm(stack)).outputs["rootEvidence"]).toBe("stale");
    } finally {
      own.kill("SIGKILL");
    }
    expectSuccess(await stack.destroy());
    expect(await stack.leftovers()).toEqual([]);
  });
});
