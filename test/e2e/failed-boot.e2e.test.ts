import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Stack } from "../lab/engine.js";
import type { RunResult } from "../lab/run-process.js";
import {
  type Args,
  expectFailure,
  expectSuccess,
  programOf,
  Scene,
  suiteName,
  theVm,
  vmms,
  whyNoGuest,
} from "./scene.js";

const reason = whyNoGuest();

describe.skipIf(reason !== undefined)(suiteName("a boot that fails", reason), () => {
  let scene: Scene;
  let stack: Stack;
  let result: RunResult;

  /** Preflight would find the first two; a guest has to tell of the others. */
  const unchecked = { preflight: "off", readiness: { timeoutSeconds: 90 } };
  const vms = (): Record<string, { args: Args }> => ({
    "no-init": { args: scene.args("empty", unchecked) },
    "wrong-export": { args: scene.args("blue", { ...unchecked, nfsPath: `${scene.folder}/nowhere` }) },
    panic: { args: scene.args("exits", unchecked) },
    "no-word": {
      args: scene.args("blue", { readiness: { timeoutSeconds: 45, console: "^a line that never comes$" } }),
    },
  });
  /** What was said of one VM: the engine's diagnostics of its resource. */
  const saidOf = (name: string): string => {
    const [, said = ""] = result.output.split(`\n  microvm:index:MicroVm (${name}):\n`);
    return said.split(/\n {2}\S/)[0] ?? "";
  };

  beforeAll(async () => {
    scene = await Scene.open({ blue: "complete", empty: "missing", exits: "exits" });
    stack = await scene.stack(programOf(vms()));
    result = await stack.up();
  }, 240_000);
  afterAll(() => scene?.close());

  it("fails the up with a message for a person, and no stack trace", () => {
    expectFailure(result);
    for (const name of Object.keys(vms())) expect(saidOf(name), result.output).not.toBe("");
  });

  it("is told by cause, remedy and the last console lines: a root without an init", () => {
    expect(saidOf("no-init")).toMatch(/init/);
    expect(saidOf("no-init")).toMatch(/lines of the guest's console:\n\s+\| /);
  });

  it("is told by cause, remedy and the last console lines: an export that is not there", () => {
    expect(saidOf("wrong-export")).toMatch(/nfsPath: .*nowhere/);
    expect(saidOf("wrong-export")).toContain(scene.root("blue"));
    expect(saidOf("wrong-export")).toMatch(/lines of the guest's console:\n\s+\| /);
  });

  it("is told by cause, remedy and the last console lines: an init that gives up", () => {
    expect(saidOf("panic")).toMatch(/Attempted to kill init|init .*(?:exited|ended|gave up)/);
    expect(saidOf("panic")).toMatch(/\| .*guest: giving up/);
  });

  it("is told by cause, remedy and the last console lines: a word that the guest never says", () => {
    expect(saidOf("no-word")).toMatch(/no proof within 45 s: still waiting for .*a line that never comes/);
    expect(saidOf("no-word")).toMatch(/\| .*guest: ready/);
  });

  it("leaves no process, folder, lease or socket, and nothing in the state", async () => {
    expect(await stack.leftovers()).toEqual([]);
    expect(await stack.resources()).toEqual([]);
  });

  it("is refused by the preview already where that can be known, and nothing is booted", async () => {
    for (const name of ["no-init", "wrong-export"]) {
      const args = { ...vms()[name]?.args, preflight: undefined };
      await stack.writeProgram({ "index.js": programOf({ [name]: { args } }) });
      const preview = await stack.preview();
      expectFailure(preview);
      expect(preview.output).toMatch(
        name === "no-init" ? /no init|init program|\/sbin\/init/ : /nfsPath: .*nowhere/,
      );
      expectFailure(await stack.up());
      expect(await stack.leftovers()).toEqual([]);
    }
  });

  it("is followed by an up that works once the input is right", async () => {
    await stack.writeProgram({ "index.js": programOf({ panic: { args: scene.args("blue") } }) });
    expectSuccess(await stack.up());
    expect(await vmms(stack)).toEqual([(await theVm(stack)).pid]);
    expectSuccess(await stack.destroy());
    expect(await stack.leftovers()).toEqual([]);
  });
});
