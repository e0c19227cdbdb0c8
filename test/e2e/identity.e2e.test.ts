import { rename, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Stack } from "../lab/engine.js";
import { mustRun } from "../lab/run-process.js";
import {
  type Args,
  expectFailure,
  expectSuccess,
  programOf,
  Scene,
  suiteName,
  textOf,
  theVm,
  vmOf,
  whyNoGuest,
} from "./scene.js";

const reason = whyNoGuest();

/** The command, as it is built. */
const MICROVM = resolve(__dirname, "../../dist/provider/cli/microvm.js");

/** What a VM is called and whose it is does not depend on whether it runs: nothing is booted here. */
describe.skipIf(reason !== undefined)(suiteName("whose VM it is", reason), () => {
  let scene: Scene;
  const args = (more: Args = {}): Args => scene.args("blue", { powerState: "stopped", ...more });

  beforeAll(async () => {
    scene = await Scene.open({ blue: "complete" });
  });
  afterAll(() => scene?.close());

  it("tells two resources of one name apart by their component, and keeps a VM that an alias moves beside another", async () => {
    const stack = await scene.stack(
      components(args(), `for (const site of [East, West]) new MicroVm("vm", args, { parent: new site() });`),
    );
    expectSuccess(await stack.up());
    const made = (await stack.resources()).map((resource) => vmOf(resource));
    expect(new Set(made.map(({ vmName }) => vmName)).size).toBe(2);
    expect(made.every(({ vmName }) => /^vm-[0-9a-f]{8}$/.test(vmName))).toBe(true);

    const moved = components(
      args(),
      `const [east, west] = [new East(), new West()];
new MicroVm("vm", args, { parent: east });
new MicroVm("renamed", args, { parent: east, aliases: [{ name: "vm", parent: west }] });`,
    );
    await stack.writeProgram({ "index.js": moved });
    // Twice: the first up writes the new URN into the state.
    for (const _ of [1, 2]) {
      expectSuccess(await stack.up("--refresh", "--expect-no-changes"));
      const now = (await stack.resources()).map((resource) => vmOf(resource));
      expect(now.map(({ id }) => id).toSorted()).toEqual(made.map(({ id }) => id).toSorted());
    }
    expectSuccess(await stack.destroy());
    expect(await stack.leftovers()).toEqual([]);
  });

  describe("on another host", () => {
    let stack: Stack;
    let hostId: string;
    const file = () => join(stack.stateDirectory, "host-id");

    beforeAll(async () => {
      stack = await scene.stack(programOf({ vm: { args: args() } }));
      expectSuccess(await stack.up());
      hostId = await textOf(file());
    });
    afterEach(() => writeFile(file(), hostId));

    const expectHandsOff = async (): Promise<void> => {
      const before = await theVm(stack);
      const preview = await stack.preview();
      expectSuccess(preview);
      expect(preview.output).toContain(`${before.vmName}: not checked: `);
      expect(preview.output).toMatch(/3 unchanged/);
      for (const result of [await stack.refresh(), await stack.destroy()]) {
        expectFailure(result);
        expect(result.output).toContain(`microvm forget ${before.vmName}`);
      }
      expect(await theVm(stack)).toEqual(before);
    };

    it("is an error for refresh and destroy and a notice in the preview: the state directory is another host's", async () => {
      await writeFile(file(), `${"0".repeat(32)}\n`);
      await expectHandsOff();
    });

    it("is an error for refresh and destroy and a notice in the preview: the state directory is not there", async () => {
      const aside = `${stack.stateDirectory}-aside`;
      await rename(stack.stateDirectory, aside);
      try {
        await expectHandsOff();
      } finally {
        // The preview has cached an initramfs.
        await rm(stack.stateDirectory, { recursive: true, force: true });
        await rename(aside, stack.stateDirectory);
      }
    });

    it("is as before once it is back", async () => {
      expectSuccess(await stack.up("--refresh", "--expect-no-changes"));
    });

    it("is given up by microvm forget, and destroy then goes through", async () => {
      await writeFile(file(), `${"0".repeat(32)}\n`);
      const { vmName } = await theVm(stack);
      const env = { ...process.env, XDG_STATE_HOME: join(stack.folder, "state") };
      await mustRun(process.execPath, [MICROVM, "forget", vmName], { env });
      expectSuccess(await stack.destroy());
      expect(await stack.resources()).toEqual([]);
      expect(await stack.leftovers()).toEqual([]);
    });
  });

  it("gives a name to one of two stacks that take it at once, and tells the other whose it is", async () => {
    const state = join(scene.folder, "state");
    const program = programOf({ vm: { args: args({ vmName: "one-of-us" }) } });
    const stacks = await Promise.all(
      ["first", "second"].map((project) =>
        scene.stack(
          { "index.js": program, "Pulumi.yaml": `name: ${project}\nruntime: nodejs\n` },
          { env: { XDG_STATE_HOME: state } },
        ),
      ),
    );
    const results = await Promise.all(stacks.map((stack) => stack.up()));
    const won = results.findIndex(({ exitCode }) => exitCode === 0);
    const [winner, loser] = [stacks[won], stacks[1 - won]];
    const lost = results[1 - won];
    if (winner === undefined || loser === undefined || lost === undefined) throw new Error("no winner");
    expectFailure(lost);
    expect(lost.output).toContain((await theVm(winner)).urn);
    expect(lost.output).toContain(`${winner.folder}/program`);
    expect(lost.output).toContain("microvm rm one-of-us");
    expect(await loser.resources()).toEqual([]);
    // What the loser's destroy takes away is not the winner's.
    expectSuccess(await loser.destroy());
    expectSuccess(await winner.up("--expect-no-changes"));
    // Looking at it is no ownership either.
    const { id } = await theVm(winner);
    await loser.writeProgram({
      "index.js": programOf({}, `exports.state = MicroVm.get("theirs", ${JSON.stringify(id)}).state;`),
    });
    expectSuccess(await loser.up());
    expect(await loser.outputs()).toEqual({ state: "stopped" });
    expectSuccess(await loser.destroy());
    expectSuccess(await winner.destroy());
    await loser.writeProgram({ "index.js": program });
    expectSuccess(await loser.up());
    expectSuccess(await loser.destroy());
  });
});

/** A program with two component classes, `East` and `West`, and `args` for their VMs. */
function components(args: Args, body: string): string {
  const classes = ["East", "West"].map(
    (name) =>
      `class ${name} extends pulumi.ComponentResource { constructor() { super("lab:index:${name}", "site"); } }`,
  );
  return programOf({}, [...classes, `const args = ${JSON.stringify(args)};`, body].join("\n"));
}
