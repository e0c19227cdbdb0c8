import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  expectSuccess,
  forwardPort,
  programOf,
  Scene,
  SCRIPTS_PORT,
  suiteName,
  theVm,
  whyNoGuest,
} from "./scene.js";

const reason = whyNoGuest();

describe.skipIf(reason !== undefined)(suiteName("a guest that reaches its root alone", reason), () => {
  let scene: Scene;

  beforeAll(async () => {
    scene = await Scene.open({ root: "complete" });
  });
  afterAll(() => scene?.close());

  it("is a replacement, previewed with its command line, and runs on when the engine has ended", async () => {
    const hostPort = await forwardPort();
    const portForwards = [{ hostPort, guestPort: SCRIPTS_PORT }];
    const stack = await scene.stack(programOf({ vm: { args: scene.args("root", { portForwards }) } }));
    expectSuccess(await stack.up());
    const before = await theVm(stack);

    const args = scene.args("root", { portForwards, guestAccess: "nfs-only" });
    await stack.writeProgram({ "index.js": programOf({ vm: { args } }) });
    const steps = await stack.previewSteps();
    const step = steps.find(({ urn, op }) => urn === before.urn && op === "replace");
    expect(step?.replaceReasons).toEqual(expect.arrayContaining(["guestAccess", "cmdline"]));
    const { output } = await stack.run("preview", "--diff");
    expect(output).toContain("the guest reaches nfsServer 127.0.0.1 as 10.0.2.100, and nothing else");
    expect(output).toMatch(/guestAccess\s*: "internet" => "nfs-only"/);

    expectSuccess(await stack.up());
    const after = await theVm(stack);
    expect(after.instance).not.toBe(before.instance);
    expect(after.outputs).toMatchObject({ state: "running", rootEvidence: "proved" });
    // The guest reads this program from its root.
    const cmdline = await (await fetch(`http://127.0.0.1:${hostPort}/cgi-bin/cmdline`)).text();
    expect(cmdline.trim()).toBe(after.outputs["cmdline"]);
    expect(cmdline).toContain(` nfsroot=10.0.2.100:${scene.root("root")},`);

    expectSuccess(await stack.destroy());
    expect(await stack.leftovers()).toEqual([]);
  });
});
