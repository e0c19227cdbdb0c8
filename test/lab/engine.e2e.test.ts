import { afterEach, describe, expect, it } from "vitest";
import { Stack, whyNoEngine } from "./engine.js";

const reason = whyNoEngine();

describe.skipIf(reason !== undefined)(`the lab's engine${reason === undefined ? "" : ` (${reason})`}`, () => {
  let stack: Stack | undefined;
  afterEach(async () => {
    await stack?.dispose();
  });

  it("runs a program with its configuration, shows outputs and state, and leaves nothing", async () => {
    stack = await Stack.create({
      program: `const pulumi = require("@pulumi/pulumi"); exports.word = new pulumi.Config().require("word");`,
      config: { word: "hello" },
    });
    const preview = await stack.previewSteps();
    expect(preview.map(({ op }) => op)).toEqual(["create"]);
    expect((await stack.up()).exitCode).toBe(0);
    expect(await stack.outputs()).toEqual({ word: "hello" });
    expect(await stack.resources("pulumi:pulumi:Stack")).toHaveLength(1);
    expect((await stack.destroy()).exitCode).toBe(0);
    expect(await stack.leftovers()).toEqual([]);
  }, 120_000);

  it("kills an engine at work", async () => {
    stack = await Stack.create({
      program: `console.log("the program runs"); exports.never = new Promise((resolve) => setTimeout(resolve, 60000));`,
    });
    const run = stack.start("up", "--yes", "--skip-preview");
    await expect.poll(() => run.output(), { timeout: 60_000 }).toContain("the program runs");
    run.kill();
    expect((await run.result).signal).toBe("SIGKILL");
  }, 120_000);
});
