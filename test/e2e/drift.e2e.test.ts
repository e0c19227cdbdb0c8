import { appendFile, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { QmpClient } from "../../provider/backends/qemu/qmp.js";
import { hasGuestEnded } from "../../provider/console/ended.js";
import type { Stack } from "../lab/engine.js";
import { expectSuccess, programOf, Scene, suiteName, theVm, type Vm, vmms, whyNoGuest } from "./scene.js";

const reason = whyNoGuest();

/** What a guest does once the file says so: its init ends, so that the kernel panics. */
const ORDERS = `#!/bin/sh
while sleep 0.3; do
  read -r order < /var/order
  [ "$order" = panic ] && kill -QUIT 1
done
`;

describe.skipIf(reason !== undefined)(suiteName("a VM that changed behind our back", reason), () => {
  let scene: Scene;
  let stack: Stack;
  let vm: Vm;

  beforeAll(async () => {
    scene = await Scene.open({ blue: "complete" });
    const root = scene.root("blue");
    await writeFile(join(root, "var/order"), "none\n");
    await writeFile(join(root, "usr/bin/orders"), ORDERS, { mode: 0o755 });
    await appendFile(join(root, "etc/inittab"), "::respawn:/usr/bin/orders\n::restart:/bin/false\n");
    // Without panic=-1 a guest that has panicked leaves a hypervisor that runs.
    const kernel = process.env["MICROVM_LAB_NFS_KERNEL"] ?? scene.kernel;
    const args = scene.args("blue", { kernel, kernelArgs: [], readiness: { console: "guest: ready" } });
    stack = await scene.stack(programOf({ vm: { args } }));
    expectSuccess(await stack.up());
    vm = await theVm(stack);
  });
  afterAll(() => scene?.close());

  /** A refresh sees it, the preview after it shows the repair, the up makes it, and the next one finds nothing to do. */
  const repair = async (seen: string, op: "update" | "replace"): Promise<Vm> => {
    const refreshed = await stack.run("refresh", "--yes", "--diff");
    expectSuccess(refreshed);
    expect(refreshed.output).toMatch(new RegExp(`state *: "running" => "${seen}"`));
    const steps = await stack.previewSteps();
    expect(steps.filter(({ urn }) => urn.includes("MicroVm")).map((step) => step.op)).toContain(op);
    expectSuccess(await stack.up());
    expectSuccess(await stack.up("--expect-no-changes"));
    const repaired = await theVm(stack);
    expect(repaired.outputs).toMatchObject({ state: "running", rootEvidence: "proved" });
    expect(await vmms(stack)).toEqual([repaired.pid]);
    return repaired;
  };

  it("by a pause: it is resumed as the same process", async () => {
    const record = await readFile(join(stack.stateDirectory, vm.vmName, "vm.json"), "utf8");
    const { controlSocket } = JSON.parse(record) as { controlSocket: string };
    const qmp = await QmpClient.connect(controlSocket);
    await qmp.stop();
    qmp.close();
    expect(await repair("paused", "update")).toMatchObject({ id: vm.id, pid: vm.pid });
  });

  it("by a panic of its guest, of which the hypervisor says nothing: it is started again", async () => {
    await writeFile(join(scene.root("blue"), "var/order"), "panic\n");
    const consoleLog = String(vm.outputs["consoleLog"]);
    await expect.poll(() => hasGuestEnded(consoleLog), { timeout: 60_000 }).toBe(true);
    await writeFile(join(scene.root("blue"), "var/order"), "none\n");
    expect(await vmms(stack)).toEqual([vm.pid]);
    const repaired = await repair("stopped", "update");
    expect(repaired.id).toBe(vm.id);
    expect(repaired.pid).not.toBe(vm.pid);
    vm = repaired;
  });

  it("by the loss of its record: it is powered off and made anew", async () => {
    await rm(join(stack.stateDirectory, vm.vmName, "vm.json"));
    const anew = await repair("damaged", "replace");
    expect(anew.vmName).toBe(vm.vmName);
    expect(anew.id).not.toBe(vm.id);
  });

  it("leaves nothing in the end", async () => {
    expectSuccess(await stack.destroy());
    expect(await stack.leftovers()).toEqual([]);
  });
});
