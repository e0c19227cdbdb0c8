import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { whyNoBed } from "../lab/bed.js";
import { Stack, whyNoEngine } from "../lab/engine.js";
import { makeGuestRoot } from "../lab/guest.js";
import { isOnPath } from "../lab/programs.js";

const EXAMPLE = resolve(__dirname, "../../examples/dev-environment");
const NAMES = ["ada", "grace", "linus"];

/** One line of the engine's log of events, as far as it is read here. */
interface EngineEvent {
  readonly resourcePreEvent?: Step;
  readonly resOutputsEvent?: Step;
}
interface Step {
  readonly metadata: { readonly op: string; readonly type: string };
}

/** How many resources of a type the engine had begun to create and not ended, at the most. */
async function mostAtOnce(log: string, type: string): Promise<number> {
  const isCreate = (step: Step | undefined) => step?.metadata.op === "create" && step.metadata.type === type;
  const lines = (await readFile(log, "utf8")).trimEnd().split("\n");
  let now = 0;
  let most = 0;
  for (const event of lines.map((line): EngineEvent => JSON.parse(line))) {
    if (isCreate(event.resourcePreEvent)) most = Math.max(most, ++now);
    if (isCreate(event.resOutputsEvent)) now--;
  }
  expect(now).toBe(0); // each end was found
  return most;
}

const reason = whyNoBed() ?? whyNoEngine();
const noAgentFs =
  process.env["AGENTFS"] || isOnPath("agentfs")
    ? undefined
    : "AGENTFS is not set, and agentfs is not on PATH";

describe.each([
  { how: "overlays of AgentFS", why: reason ?? noAgentFs, onCopies: false },
  { how: "copies served by nfs-ganesha", why: reason, onCopies: true },
])("examples/dev-environment", ({ how, why, onCopies }) => {
  const suffix = why === undefined ? "" : ` (${why})`;
  describe.skipIf(why !== undefined)(`on ${how}${suffix}`, () => {
    let folder: string;
    let stack: Stack;
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "lab-dev-"));
      const roots = onCopies ? NAMES.map((name) => join(folder, "copies", name)) : [join(folder, "base")];
      for (const root of roots) await makeGuestRoot(root);
      stack = await Stack.create({
        from: EXAMPLE,
        program: {},
        // Without it `pulumi up` has no --event-log.
        env: { PULUMI_DEBUG_COMMANDS: "true" },
        config: {
          "microvm:kernel":
            process.env["MICROVM_LAB_NFS_KERNEL"] || (process.env["MICROVM_LAB_KERNEL"] ?? ""),
          ...(onCopies ? { copies: join(folder, "copies") } : { base: join(folder, "base") }),
        },
      });
    });
    afterAll(async () => {
      await stack.dispose();
      await rm(folder, { recursive: true, force: true });
    });

    it("makes three machines on roots of their own side by side in one up; a preview then touches the one that the program changed", async () => {
      const events = join(stack.folder, "events");
      expect((await stack.up("--event-log", events)).output).toContain("8 created");
      expect(await mostAtOnce(events, "microvm:index:MicroVm")).toBe(NAMES.length);
      const outputs = await stack.outputs();
      const logs = outputs["consoleLogs"] as Record<string, string>;
      const names = outputs["vmNames"] as Record<string, string>;
      expect(Object.keys(names)).toEqual(NAMES);
      for (const name of NAMES) {
        await expect
          .poll(() => readFile(logs[name] ?? "", "utf8"), { timeout: 30_000 })
          .toContain("guest: my root is 10.0.2.2:");
      }

      const program = await readFile(join(EXAMPLE, "index.ts"), "utf8");
      expect(program).toContain("  grace: 256,\n");
      await stack.writeProgram({ "index.ts": program.replace("  grace: 256,\n", "  grace: 320,\n") });
      const touched = (await stack.previewSteps()).filter(({ op }) => op !== "same");
      expect(touched.map(({ urn }) => urn.split("::").at(-1))).toEqual(touched.map(() => "grace"));
      expect(touched.flatMap(({ replaceReasons }) => replaceReasons ?? [])).toContain("memoryMiB");

      expect((await stack.destroy()).exitCode).toBe(0);
      expect(await stack.leftovers()).toEqual([]);
    });
  });
});
