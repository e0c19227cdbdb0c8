import { rm } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Stack } from "../lab/engine.js";
import {
  expectFailure,
  expectSuccess,
  forwardPort,
  programOf,
  Scene,
  SCRIPTS_PORT,
  suiteName,
  textOf,
  theVm,
  type Vm,
  vmms,
  whyNoGuest,
} from "./scene.js";

const reason = whyNoGuest();

describe.skipIf(reason !== undefined)(suiteName("the life of a VM", reason), () => {
  let scene: Scene;
  let stack: Stack;
  let port: number;
  let created: Vm;
  let previewed: unknown;

  const write = (more: object = {}) =>
    stack.writeProgram({
      "index.js": programOf({ vm: { args: scene.args("blue", { ...plain(), ...more }) } }),
    });
  /** The guest's proof is that of a program that asks for no line of its own. */
  const plain = () => ({
    portForwards: [{ hostPort: port, guestPort: SCRIPTS_PORT }],
    readiness: { timeoutSeconds: 120 },
  });
  const fromGuest = async (path: string): Promise<string> => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { signal: AbortSignal.timeout(3000) });
    return response.text();
  };
  /** QEMU takes a connection through the forward before the guest's server listens. */
  const untilServed = (path: string) =>
    expect.poll(() => fromGuest(path).catch(String), { timeout: 60_000, interval: 250 });

  beforeAll(async () => {
    scene = await Scene.open({ blue: "complete" });
    port = await forwardPort();
    stack = await scene.stack(programOf({ vm: { args: scene.args("blue", plain()) } }));
  });
  afterAll(() => scene?.close());

  it("shows the kernel command line before anything boots, and boots it to the letter", async () => {
    const step = (await stack.previewSteps()).find(({ urn }) => urn.includes("MicroVm"));
    expect(step?.op).toBe("create");
    previewed = step?.newState?.inputs?.["cmdline"];
    expect(previewed).toContain(`nfsroot=10.0.2.2:${scene.root("blue")},`);
    expect(await stack.leftovers()).toEqual([]);

    expectSuccess(await stack.up());
    created = await theVm(stack);
    expect(created.outputs).toMatchObject({ state: "running", rootEvidence: "proved", cmdline: previewed });
    await untilServed("/cgi-bin/cmdline").toBe(`${String(previewed)}\n`);
    expect(await textOf(String(created.outputs["consoleLog"]))).toContain(
      `guest: my root is 10.0.2.2:${scene.root("blue")} (nfs)`,
    );
    // Written by the guest, read beside the server.
    expect(await textOf(join(scene.root("blue"), "var/boots.txt"))).toContain(created.vmName);
  });

  it("keeps at most 4 KB of state for it, with a pointer of at most 64 bytes instead of code", async () => {
    const [resource] = await stack.resources();
    expect(Buffer.byteLength(JSON.stringify(resource))).toBeLessThanOrEqual(4096);
    expect(resource?.inputs?.["__provider"]).toBe(resource?.outputs?.["__provider"]);
    expect(Buffer.byteLength(String(resource?.inputs?.["__provider"]))).toBeLessThanOrEqual(64);
  });

  it("says unchanged when nothing changed, and touches nothing", async () => {
    const steps = await stack.previewSteps();
    expect(steps.map(({ op }) => op)).toEqual(steps.map(() => "same"));
    expectSuccess(await stack.up("--refresh", "--expect-no-changes"));
    expect(await theVm(stack)).toEqual(created);
    expect(await vmms(stack)).toEqual([created.pid]);
  });

  it("pauses and resumes the guest in the same process", async () => {
    await write({ powerState: "paused" });
    expectSuccess(await stack.up());
    expect((await theVm(stack)).outputs).toMatchObject({ state: "paused", pid: created.pid });
    await expect(fromGuest("/cgi-bin/cmdline")).rejects.toThrow("timeout");

    await write();
    expectSuccess(await stack.up());
    expect((await theVm(stack)).outputs).toMatchObject({ state: "running", pid: created.pid });
    await untilServed("/cgi-bin/cmdline").toBe(`${String(previewed)}\n`);
  });

  it("powers the guest off in an orderly way, and starts the same VM again", async () => {
    await write({ powerState: "stopped" });
    expectSuccess(await stack.up());
    const stopped = await theVm(stack);
    expect(stopped).toMatchObject({ id: created.id, pid: undefined, outputs: { state: "stopped" } });
    expect(await vmms(stack)).toEqual([]);
    expect(await textOf(join(scene.root("blue"), "var/power-offs.txt"))).toBe("off\n");

    await write();
    expectSuccess(await stack.up());
    const started = await theVm(stack);
    expect(started).toMatchObject({ id: created.id, outputs: { state: "running", rootEvidence: "proved" } });
    expect(started.pid).not.toBe(created.pid);
    expect(await vmms(stack)).toEqual([started.pid]);
  });

  it("repairs by a plain up a VM whose process was killed, and shows it in preview and refresh", async () => {
    const before = await theVm(stack);
    process.kill(before.pid ?? 0, "SIGKILL");
    const preview = await stack.preview();
    expectSuccess(preview);
    expect(preview.output).toMatch(/~ observed *: "running" => "stopped"/);
    const refreshed = await stack.run("refresh", "--yes", "--diff");
    expectSuccess(refreshed);
    expect(refreshed.output).toMatch(/state *: "running" => "stopped"/);
    expect(await vmms(stack)).toEqual([]);

    const intruder = createServer().listen(port, "127.0.0.1");
    const blocked = await stack.up();
    intruder.close();
    expectFailure(blocked);
    expect(blocked.output).toMatch(
      new RegExp(`portForwards: port ${port}/tcp .*is in use by another program`),
    );

    expectSuccess(await stack.up());
    const repaired = await theVm(stack);
    expect(repaired).toMatchObject({ id: created.id, outputs: { state: "running" } });
    expect(await vmms(stack)).toEqual([repaired.pid]);
    expectSuccess(await stack.up("--expect-no-changes"));
  });

  it("starts a guest again that has powered itself off", async () => {
    await untilServed("/cgi-bin/cmdline").toBe(`${String(previewed)}\n`);
    // acpid's action and this are the same to the VMM: the guest is off, and the process has ended.
    await fromGuest("/cgi-bin/poweroff").catch(() => undefined);
    await expect.poll(() => vmms(stack), { timeout: 60_000 }).toEqual([]);
    expectSuccess(await stack.up());
    const repaired = await theVm(stack);
    expect(repaired.id).toBe(created.id);
    expect(await vmms(stack)).toEqual([repaired.pid]);
  });

  it("makes a new VM when the folder of the old one is gone", async () => {
    process.kill((await theVm(stack)).pid ?? 0, "SIGKILL");
    await rm(join(stack.stateDirectory, created.vmName), { recursive: true });
    const step = (await stack.previewSteps()).find(({ op }) => op === "replace");
    expect(step?.replaceReasons).toEqual(["observed"]);
    expectSuccess(await stack.up());
    const anew = await theVm(stack);
    expect(anew.vmName).toBe(created.vmName);
    expect(anew.instance).not.toBe(created.instance);
    expect(await vmms(stack)).toEqual([anew.pid]);
  });

  it("destroys it and leaves nothing", async () => {
    expectSuccess(await stack.destroy());
    expect(await stack.leftovers()).toEqual([]);
    expect(await stack.resources()).toEqual([]);
  });
});
