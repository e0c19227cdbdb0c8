import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { EngineRun, Stack } from "../lab/engine.js";
import {
  expectSuccess,
  killWithProviders,
  programOf,
  Scene,
  suiteName,
  textOf,
  theVm,
  upAfterKill,
  vmms,
  whyNoGuest,
} from "./scene.js";

const reason = whyNoGuest();

describe.skipIf(reason !== undefined)(suiteName("an engine that ends during create", reason), () => {
  let scene: Scene;
  let stack: Stack;

  const write = (name: string) =>
    stack.writeProgram({ "index.js": programOf({ [name]: { args: scene.args("blue") } }) });
  const start = () => stack.start("up", "--yes", "--skip-preview");
  const folders = async (): Promise<readonly string[]> =>
    (await readdir(stack.stateDirectory).catch(() => [])).filter((name) => !/^\.|^host-id$/.test(name));
  const vmName = async (): Promise<string> => (await folders())[0] ?? "-";
  const nextUp = async (): Promise<string> => {
    const result = await upAfterKill(stack);
    expectSuccess(result);
    return result.output;
  };

  beforeAll(async () => {
    scene = await Scene.open({ blue: "complete" });
    stack = await scene.stack(programOf({}));
  });
  afterAll(() => scene?.close());

  it("is finished and saved after one interrupt", async () => {
    await write("interrupted");
    const run = start();
    await untilSaid(run, /waiting for/);
    run.kill("SIGINT");
    await run.result;
    const vm = await theVm(stack);
    expect(vm.outputs).toMatchObject({ state: "running", rootEvidence: "proved" });
    expect(await vmms(stack)).toEqual([vm.pid]);
    await write("interrupted");
    expectSuccess(await stack.up("--expect-no-changes"));
    expect(await theVm(stack)).toEqual(vm);
    expectSuccess(await stack.destroy());
  });

  it("is undone by the provider when the engine is killed, and made by the next up", async () => {
    await write("undone");
    const run = start();
    await untilSaid(run, /waiting for the/);
    expect(await vmms(stack)).toHaveLength(1);
    run.kill("SIGKILL");
    await run.result;
    await expect.poll(() => stack.leftovers(), { timeout: 30_000, interval: 200 }).toEqual([]);
    const said = await nextUp();
    expect(said).not.toContain("interrupted create");
    expect(await vmms(stack)).toEqual([(await theVm(stack)).pid]);
  });

  const moments: Record<string, (run: EngineRun) => Promise<void>> = {
    "the name was taken": async () => {
      await expect
        .poll(async () => textOf(join(stack.stateDirectory, await vmName(), "vm.json")), {
          timeout: 120_000,
          interval: 5,
        })
        .not.toBe("");
    },
    "the VMM was started": async () => {
      await expect
        .poll(async () => (await vmms(stack)).length, { timeout: 120_000, interval: 5 })
        .toBeGreaterThan(0);
    },
    "the guest booted": (run) =>
      untilSaid(run, /waiting for the (?:kernel to start|kernel to mount|initramfs)/),
  };

  for (const [moment, reached] of Object.entries(moments)) {
    it(`is reclaimed by the next up when engine and provider were killed after ${moment}`, async () => {
      if ((await stack.resources()).length > 0) expectSuccess(await stack.destroy());
      await write("lost");
      const run = start();
      await reached(run);
      await killWithProviders(stack, run);
      const name = await vmName();
      const record: { instance?: string } = JSON.parse(
        await textOf(join(stack.stateDirectory, name, "vm.json")),
      );

      const said = await nextUp();
      expect(said).toContain(`${name}: the VM of an interrupted create`);
      expect(await readdir(join(stack.stateDirectory, ".lost"))).toContain(`${name}-${record.instance}`);
      expect(said).toContain(join(stack.stateDirectory, ".lost", `${name}-${record.instance}`));
      const vm = await theVm(stack);
      expect(vm.vmName).toBe(name);
      expect(vm.instance).not.toBe(record.instance);
      expect(await vmms(stack)).toEqual([vm.pid]);
    });
  }

  it("leaves nothing once all is destroyed", async () => {
    expectSuccess(await stack.destroy());
    expect(await stack.leftovers()).toEqual([]);
  });
});

async function untilSaid(run: EngineRun, pattern: RegExp): Promise<void> {
  await expect.poll(() => run.output(), { timeout: 120_000, interval: 10 }).toMatch(pattern);
}
