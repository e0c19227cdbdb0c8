import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Bed, configurationOf, makeBed, whyNoBed } from "../lab/bed.js";
import { Stack, whyNoEngine } from "../lab/engine.js";

const reason = whyNoBed() ?? whyNoEngine();
const suffix = reason === undefined ? "" : ` (${reason})`;

describe.skipIf(reason !== undefined)(
  `examples/nfs-root with the real engine and a real guest${suffix}`,
  () => {
    let bed: Bed;
    let stack: Stack;
    beforeAll(async () => {
      bed = await makeBed();
      stack = await Stack.create({
        from: resolve(__dirname, "../../examples/nfs-root"),
        program: {},
        config: configurationOf(bed.inputs),
      });
    });
    afterAll(async () => {
      await stack.dispose();
      await bed.close();
    });

    it("shows in the preview the command line that boots, and the guest says that it runs on that root", async () => {
      const steps = await stack.previewSteps();
      const planned = steps.find(({ newState }) => newState?.type === "microvm:index:MicroVm");
      expect(planned?.op).toBe("create");

      const up = await stack.up();
      expect(up.output).toContain("3 created");
      const outputs = await stack.outputs();
      expect(outputs["cmdline"]).toBe(planned?.newState?.inputs?.["cmdline"]);
      expect(outputs).toMatchObject({ state: "running", rootEvidence: "proved" });
      const words = `guest: my root is 10.0.2.2:${bed.directory} (nfs)`;
      await expect
        .poll(() => readFile(String(outputs["consoleLog"]), "utf8"), { timeout: 30_000 })
        .toContain(words);
      await expect.poll(() => bed.boots().catch(() => []), { timeout: 30_000 }).toHaveLength(1);
      expect((await bed.boots())[0]).toContain(`on 10.0.2.2:${bed.directory} (nfs)`);
    });

    it("has nothing to do when nothing changed, also after a refresh", async () => {
      const steps = await stack.previewSteps();
      expect(new Set(steps.map(({ op }) => op))).toEqual(new Set(["same"]));
      expect((await stack.refresh()).exitCode).toBe(0);
      const after = await stack.previewSteps();
      expect(new Set(after.map(({ op }) => op))).toEqual(new Set(["same"]));
    });

    it("plans a replace for another server", async () => {
      await stack.setConfig("microvm:nfsServer", "192.0.2.10");
      await stack.setConfig("microvm:preflight", "warn");
      const steps = await stack.previewSteps();
      const replace = steps.find(({ op }) => op === "replace");
      expect(replace?.replaceReasons).toContain("nfsServer");
      expect(replace?.newState?.inputs?.["cmdline"]).toContain("nfsroot=192.0.2.10:");
    });

    it("leaves nothing behind when it is destroyed", async () => {
      expect((await stack.destroy()).exitCode).toBe(0);
      expect(await stack.leftovers()).toEqual([]);
    });
  },
);
