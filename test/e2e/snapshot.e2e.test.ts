import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { Stack, whyNoEngine } from "../lab/engine.js";
import { makeSnapshotBed } from "../provider/backends/cloud-hypervisor/snapshot-bed.js";
import { expectFailure, expectSuccess, suiteName } from "./scene.js";

const reason = whyNoEngine();
const TYPE = "microvm:index:MicroVmSnapshot";

/** A program that takes a snapshot of a VM that is there already; its hypervisor is a stand-in. */
const programOf = (vm: object, trigger?: string) => `
const { MicroVmSnapshot } = require("pulumi-microvm");
exports.id = new MicroVmSnapshot("kept", { vm: ${JSON.stringify(vm)}, trigger: ${JSON.stringify(trigger)} }).id;
`;

describe.skipIf(reason !== undefined)(suiteName("a snapshot in the engine", reason), () => {
  it("is taken, kept, taken anew by a trigger or when it is lost, and removed", async () => {
    const { stateDirectory, record, calls } = await makeSnapshotBed();
    const vm = { id: `${record.vmName}/${record.instance}`, stateDirectory };
    const taken = join(stateDirectory, ".snapshots");
    const stack = await Stack.create({ program: programOf(vm) });
    try {
      expectSuccess(await stack.up());
      const [first = ""] = await readdir(taken);
      const [resource] = await stack.resources(TYPE);
      expect(resource).toMatchObject({
        id: first,
        inputs: { vmId: vm.id, __provider: 'exports.handler=()=>require("pulumi-microvm/snapshot")' },
        outputs: { snapshotId: first, vmName: "web", takenAt: expect.stringMatching(/^20\d\d-/) },
      });
      expect(await calls()).toEqual(["vm.pause", "vm.snapshot", "vm.resume"]);
      expect(await readdir(join(taken, first))).toContain("confirmed");

      // The VM is made anew: the snapshot stays.
      const anew = { ...vm, id: `${record.vmName}/ffffffffffffffff` };
      await stack.writeProgram({ "index.js": programOf(anew) });
      const again = await stack.up();
      expectSuccess(again);
      expect(again.output).toMatch(/kept: keeps the snapshot of web\/0123456789abcdef/);
      expect(await readdir(taken)).toEqual([first]);

      await stack.writeProgram({ "index.js": programOf(vm, "2") });
      expectSuccess(await stack.up());
      const [second = "", ...more] = await readdir(taken);
      expect(more).toEqual([]);
      expect(second).not.toBe(first);

      await rm(join(taken, second, "vmm", "memory-ranges"));
      expectSuccess(await stack.up());
      const [third] = await readdir(taken);
      expect(third).not.toBe(second);

      await stack.writeProgram({ "index.js": programOf(anew, "3") });
      const refused = await stack.up();
      expectFailure(refused);
      expect(refused.output).toMatch(/vmId: expected a VM that runs, found web\/ffffffffffffffff gone/);
      expect(await readdir(taken)).toEqual([third]);

      expectSuccess(await stack.destroy());
      expect(await readdir(stateDirectory)).not.toContain(".snapshots");
    } finally {
      await stack.dispose();
    }
  });
});
