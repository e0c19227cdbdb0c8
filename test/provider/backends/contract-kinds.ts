/** Kinds of VMs, and what becomes of them: a part of the contract of local back ends. */

import { readFile, rm, stat, writeFile } from "node:fs/promises";

import { expect, it } from "vitest";

import { followConsole } from "../../../provider/console/follow.js";
import { forget } from "../../../provider/host/forgotten.js";
import { vmPaths } from "../../../provider/host/paths.js";
import type { ContractTests } from "./contract.js";
import { type LocalLab, referenceOf, untilPhase } from "./local-lab.js";

/** Defines the tests. */
export function testKinds(labOf: () => LocalLab, { onLinux, direct }: ContractTests): void {
  onLinux("returns from create soon after the line that decides it", async () => {
    const lab = labOf();
    const request = await lab.request({ console: "guest: ready" });
    const stop = new AbortController();
    let seenAt = Infinity;
    const record = untilPhase(request, () => true);
    const following = (async () => {
      await record;
      const { consoleLog } = vmPaths(request.stateDirectory, request.vmName);
      for await (const { lines } of followConsole(consoleLog, { signal: stop.signal })) {
        if (lines.some((line) => line.includes("guest: ready"))) seenAt = Math.min(seenAt, performance.now());
      }
    })();
    const vm = await lab.backend.create(request);
    const milliseconds = performance.now() - seenAt;
    stop.abort();
    await following;
    console.log(`create returned ${milliseconds.toFixed(1)} ms after the deciding line`);
    expect(milliseconds).toBeLessThan(1000);
    await lab.remove(referenceOf(request, vm));
  });

  it("gives a name to one of two creates only", async () => {
    const lab = labOf();
    const vmName = "vm-twice";
    const requests = [
      await lab.request({ vmName, owner: "urn:a" }),
      await lab.request({ vmName, owner: "urn:b" }),
    ];
    const results = await Promise.allSettled(
      requests.map(async (request) => await lab.backend.create(request)),
    );
    const made = results.flatMap((result, index) =>
      result.status === "fulfilled" ? [{ vm: result.value, request: requests[index] }] : [],
    );
    const failures = results.flatMap((result) => (result.status === "rejected" ? [result.reason] : []));
    expect(failures).toMatchObject([{ code: "name-taken" }]);
    const [first] = made;
    if (first?.request === undefined) throw new Error("none was made");
    expect((await lab.backend.observe(referenceOf(first.request, first.vm))).state).toBe("running");
    await lab.remove(referenceOf(first.request, first.vm));
    for (const request of requests) expect(lab.leftoversOf(request)).toEqual([]);
  });

  it("makes a VM that is paused once it is proved", async () => {
    const lab = labOf();
    const { vm, reference, request } = await lab.create({ powerState: "paused" });
    expect(vm).toMatchObject({ state: "paused", rootEvidence: "proved" });
    const { settings } = request;
    const running = await lab.update(reference, {
      ...request,
      settings: { ...settings, powerState: "running" },
    });
    expect(running).toEqual({ ...vm, state: "running" });
    await lab.remove(reference);
    expect(lab.leftoversOf(reference)).toEqual([]);
  });

  const booted = "its server boots what it makes";
  direct("makes a VM that is never started until it is asked to", booted, async () => {
    const lab = labOf();
    const { vm, reference, request } = await lab.create({ powerState: "stopped" });
    expect(vm).toMatchObject({ state: "stopped", rootEvidence: "none" });
    expect(vm.pid).toBeUndefined();
    const { settings } = request;
    const running = await lab.update(reference, {
      ...request,
      settings: { ...settings, powerState: "running" },
    });
    expect(running).toMatchObject({ state: "running", rootEvidence: "proved" });
    await lab.remove(reference);
    expect(lab.leftoversOf(reference)).toEqual([]);
  });

  it("forces off a guest that does not hear the power button", async () => {
    const lab = labOf();
    const { reference } = await lab.create({ guest: "deaf" });
    await lab.remove(reference, 2);
    expect(lab.leftoversOf(reference)).toEqual([]);
  });

  const onePattern = "its server's ready_console is for all guests";
  direct("boots a silent guest by the calm after its start", onePattern, async () => {
    const lab = labOf();
    const { vm, reference } = await lab.create({ guest: "silent" });
    expect(vm.rootEvidence).toBe("proved");
    await lab.remove(reference, 0);
    expect(lab.leftoversOf(reference)).toEqual([]);
  });

  onLinux("shows a stateful disk and its growth to the guest", async () => {
    const lab = labOf();
    const { vm, reference, request } = await lab.create({ statefulDiskMiB: 80 });
    await expect
      .poll(async () => await lab.console(vm), { timeout: 20_000 })
      .toMatch(/guest: stateful disk: \d+ MiB/);
    const grown = { ...request, boot: { ...request.boot, statefulDiskMiB: 160 } };
    await lab.update(reference, grown);
    await expect
      .poll(async () => await lab.console(vm), { timeout: 20_000 })
      .toMatch(/\[vda\] new size: 327680 512-byte/);
    await lab.remove(reference);
  });

  direct("keeps and grows a stateful disk", "it has no statefulDiskMiB", async () => {
    const lab = labOf();
    const { vm, reference, request } = await lab.create({ statefulDiskMiB: 80 });
    const grown = { ...request, boot: { ...request.boot, statefulDiskMiB: 160 } };
    expect((await lab.update(reference, grown)).pid).toBe(vm.pid);
    const { statefulDisk } = vmPaths(lab.stateDirectory, request.vmName);
    expect((await stat(statefulDisk)).size).toBe(160 * 1024 * 1024);
    await rm(statefulDisk);
    expect((await lab.backend.observe(reference)).state).toBe("damaged");
    await expect(lab.update(reference, grown)).rejects.toMatchObject({ code: "vmm-failed" });
    await lab.remove(reference);
    expect(lab.leftoversOf(reference)).toEqual([]);
  });

  it("boots a disk root, with a stateful disk over it where one can be asked for", async () => {
    const lab = labOf();
    const { vm, reference } = await lab.create({ disk: true, statefulDiskMiB: lab.isServed ? 0 : 32 });
    expect(vm).toMatchObject({ state: "running", rootEvidence: "proved" });
    await expect.poll(async () => await lab.console(vm), { timeout: 20_000 }).toContain("guest: ready");
    await lab.remove(reference);
    expect(lab.leftoversOf(reference)).toEqual([]);
  });

  it("removes what is only half there", async () => {
    const lab = labOf();
    const { vm, reference, request } = await lab.create({ powerState: "stopped" });
    await rm(vmPaths(lab.stateDirectory, request.vmName).kernel);
    expect((await lab.backend.observe(reference)).state).toBe("damaged");
    await lab.remove(reference);
    expect(lab.leftoversOf(reference)).toEqual([]);
    expect(vm.state).toBe("stopped");
  });

  it("takes a forgotten VM as gone", async () => {
    const lab = labOf();
    const { reference, request } = await lab.create({ powerState: "stopped" });
    await forget(lab.stateDirectory, request.vmName, () => undefined);
    expect((await lab.backend.observe(reference)).state).toBe("gone");
    await lab.remove(reference);
    await rm(`${lab.stateDirectory}/.lost`, { recursive: true });
    await rm(`${lab.stateDirectory}/.forgotten`, { recursive: true });
  });

  it("does not take a torn record for a VM that is gone", async () => {
    const lab = labOf();
    const { reference, request } = await lab.create({ powerState: "stopped" });
    const { record } = vmPaths(lab.stateDirectory, request.vmName);
    const text = await readFile(record, "utf8");
    await writeFile(record, text.slice(0, 100));
    const code = lab.isServed ? lab.failureCode : "record-unreadable";
    await expect(lab.backend.observe(reference)).rejects.toMatchObject({ code });
    await expect(lab.remove(reference)).rejects.toMatchObject({ code: "record-unreadable" });
    await writeFile(record, text);
    await lab.remove(reference);
    expect(lab.leftoversOf(reference)).toEqual([]);
  });
}
