/** What is seen of a VM that somebody changed behind our back, and how an update repairs it. */

import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import type { CreateRequest, VmOutputs, VmReference } from "../../../provider/backends/backend.js";
import { backendOf } from "../../../provider/backends/index.js";
import { QmpClient } from "../../../provider/backends/qemu/qmp.js";
import { vmPaths } from "../../../provider/host/paths.js";
import { identify, isAlive, untilExit } from "../../../provider/host/process.js";
import { readRecord, writeRecord } from "../../../provider/host/record.js";
import { freePort, whyNoNfsServer } from "../../lab/nfs.js";
import { isOnPath } from "../../lab/programs.js";
import { LocalLab, referenceOf } from "./local-lab.js";

const kernel = process.env["MICROVM_LAB_NFS_KERNEL"] ?? process.env["MICROVM_LAB_KERNEL"];
const reason = !isOnPath("qemu-system-x86_64")
  ? "qemu-system-x86_64 is not installed"
  : (whyNoNfsServer() ?? (kernel === undefined ? "MICROVM_LAB_KERNEL is not set" : undefined));

const title = `drift of a VM${reason === undefined ? "" : ` (skipped: ${reason})`}`;

describe.skipIf(reason !== undefined)(title, () => {
  let lab: LocalLab;
  beforeAll(async () => {
    lab = await LocalLab.open(backendOf({ type: "qemu", machine: "q35", accelerator: "auto" }), kernel ?? "");
    await obey(join(lab.folder, "complete"));
  });
  afterAll(async () => await lab.close());

  const state = async (reference: VmReference) => (await lab.backend.observe(reference)).state;
  const qmp = async (request: CreateRequest, act: (client: QmpClient) => Promise<void>) => {
    const record = await readRecord(lab.stateDirectory, request.vmName);
    const client = await QmpClient.connect(record?.controlSocket ?? "");
    try {
      await act(client);
    } finally {
      client.close();
    }
  };
  const linesOf = async (name: string) =>
    (await readFile(join(lab.folder, "complete/var", name), "utf8").catch(() => "")).split("\n").length;

  describe("by hand", () => {
    let request: CreateRequest;
    let vm: VmOutputs;
    let reference: VmReference;
    beforeAll(async () => {
      ({ request, vm, reference } = await lab.create({ kernelArgs: [], console: "guest: ready" }));
    });

    it("a paused one is seen, and resumed as the same process", async () => {
      await qmp(request, (client) => client.stop());
      expect(await state(reference)).toBe("paused");
      expect(await lab.update(reference, request)).toEqual(vm);
    });

    it("one that was to be paused and was resumed is paused again", async () => {
      const paused = { ...request, settings: { ...request.settings, powerState: "paused" } } as const;
      await lab.update(reference, paused);
      await qmp(request, (client) => client.cont());
      expect(await state(reference)).toBe("running");
      expect(await lab.update(reference, paused)).toMatchObject({ state: "paused", pid: vm.pid });
      await lab.update(reference, request);
    });

    it("one whose guest panicked is stopped, although its VMM says that it runs, and is started again", async () => {
      await order(vm, "panic");
      await expect.poll(async () => await state(reference), { timeout: 30_000 }).toBe("stopped");
      expect(await lab.console(vm)).toContain("Kernel panic - not syncing");
      const left = identify(vm.pid ?? 0);
      await qmp(request, async (client) => expect(await client.status()).toBe("running"));
      await order(vm, "none");
      vm = await lab.update(reference, request);
      expect(vm).toMatchObject({ state: "running", rootEvidence: "proved" });
      expect(left !== undefined && isAlive(left)).toBe(false);
    });

    it("one whose root its server does not know any more is stale, and takes no patience to remove", async () => {
      const { request: other, reference: lost } = await lab.create({
        kernelArgs: [],
        console: "guest: ready",
      });
      const record = await readRecord(lab.stateDirectory, other.vmName);
      if (record?.rootHandle === undefined) throw new Error("no root handle is recorded");
      // As of a server that was started anew.
      await writeRecord(lab.stateDirectory, {
        ...record,
        rootHandle: "00".repeat(record.rootHandle.length / 2),
      });
      expect((await lab.backend.observe(lost)).rootEvidence).toBe("stale");
      const told = lab.notices.length;
      await lab.remove(lost, 60);
      expect(lab.notices.slice(told)).toEqual([]);
      expect(lab.leftoversOf(lost)).toEqual([]);
    });

    it("one whose guest halted is stopped, and takes no patience to remove", async () => {
      await order(vm, "halt");
      await expect.poll(async () => await state(reference), { timeout: 30_000 }).toBe("stopped");
      expect(await lab.console(vm)).toContain("reboot: System halted");
      expect(isAlive(identify(vm.pid ?? 0) ?? { pid: 0, startTime: "", bootId: "" })).toBe(true);
      const before = performance.now();
      await order(vm, "none");
      await lab.remove(reference, 60);
      expect(performance.now() - before).toBeLessThan(30_000);
      expect(lab.leftoversOf(reference)).toEqual([]);
    });
  });

  it("a guest that was powered off by hand is stopped, and started again", async () => {
    const { request, vm, reference } = await lab.create();
    await expect.poll(async () => await lab.console(vm), { timeout: 20_000 }).toContain("guest: ready");
    // A guest that is still starting does not hear the button.
    const pressed = async (): Promise<string> => {
      await qmp(request, (client) => client.systemPowerdown()).catch(() => undefined);
      return await state(reference);
    };
    await expect.poll(pressed, { timeout: 30_000, interval: 1000 }).toBe("stopped");
    const again = await lab.update(reference, request);
    expect(again).toMatchObject({ state: "running", rootEvidence: "proved" });
    await lab.remove(reference);
    expect(lab.leftoversOf(reference)).toEqual([]);
  });

  it("a start that was killed before the guest was let run is none, even where a paused guest is wanted", async () => {
    const { request, reference } = await lab.create({ powerState: "paused" });
    const record = await readRecord(lab.stateDirectory, request.vmName);
    if (record?.vmm === undefined) throw new Error("no VMM is recorded");
    process.kill(record.vmm.pid, "SIGKILL");
    await untilExit(record.vmm, 10);
    // What a start leaves that is killed after the spawn: QEMU with -S.
    const killed = new AbortController();
    const starting = lab.update(reference, { ...request, signal: killed.signal });
    await expect
      .poll(async () => (await readRecord(lab.stateDirectory, request.vmName))?.phase, {
        interval: 2,
        timeout: 20_000,
      })
      .toBe("spawned");
    killed.abort();
    await expect(starting).rejects.toMatchObject({ code: "interrupted" });
    expect(await state(reference)).toBe("stopped");
    expect(await lab.update(reference, request)).toMatchObject({ state: "paused", rootEvidence: "proved" });
    await lab.remove(reference);
    expect(lab.leftoversOf(reference)).toEqual([]);
  });

  describe("without its record", () => {
    it("a VM that runs is damaged, no second one is made beside it, and its removal powers it off", async () => {
      const { request, vm, reference } = await lab.create({ portForwards: await forwardTo80() });
      await expect.poll(async () => await lab.console(vm), { timeout: 20_000 }).toContain("guest: ready");
      await rm(vmPaths(lab.stateDirectory, request.vmName).record);
      expect(await lab.backend.observe(reference)).toMatchObject({
        state: "damaged",
        rootEvidence: "none",
      });
      await expect(lab.backend.create(await lab.request({ vmName: request.vmName }))).rejects.toThrow(
        /holds no record/,
      );
      const powerOffs = await linesOf("power-offs.txt");
      await lab.remove(reference);
      expect(await linesOf("power-offs.txt")).toBe(powerOffs + 1);
      expect(lab.leftoversOf(reference)).toEqual([]);
      expect(await state(reference)).toBe("gone");
    });

    it("and without its folder, it is found by its process, and its name is not given away", async () => {
      const { request, vm, reference } = await lab.create();
      await rm(vmPaths(lab.stateDirectory, request.vmName).directory, { recursive: true });
      expect(await state(reference)).toBe("damaged");
      const second = await lab.request({ vmName: request.vmName });
      await expect(lab.backend.create(second)).rejects.toMatchObject({
        code: "name-taken",
        message: expect.stringContaining(`kill ${vm.pid}`) as string,
      });
      expect(lab.leftoversOf(second)).toEqual([]);
      await lab.remove(reference, 5);
      expect(lab.leftoversOf(reference)).toEqual([]);
      await lab.remove(referenceOf(second, await lab.backend.create(second)));
    });
  });

  it("a host that rebooted has every VM stopped, and starts it again from its own disks", async () => {
    const { request, vm, reference } = await lab.create({
      statefulDiskMiB: 16,
      portForwards: await forwardTo80(),
    });
    const disk = vmPaths(lab.stateDirectory, request.vmName).statefulDisk;
    const { ino } = await stat(disk);
    const record = await readRecord(lab.stateDirectory, request.vmName);
    if (record?.vmm === undefined) throw new Error("no VMM is recorded");
    process.kill(record.vmm.pid, "SIGKILL");
    await untilExit(record.vmm, 10);
    // The pid is another program's by now: this one's.
    const bootId = "00000000-1111-2222-3333-444444444444";
    const vmm = { ...record.vmm, pid: process.pid, bootId };
    await writeRecord(lab.stateDirectory, { ...record, vmm, creator: { ...record.creator, bootId } });
    await rm(join(lab.folder, "run/pulumi-microvm"), { recursive: true });

    expect(await lab.backend.observe(reference)).toMatchObject({ state: "stopped", rootEvidence: "none" });
    const again = await lab.update(reference, request);
    expect(again).toMatchObject({ state: "running", rootEvidence: "proved" });
    expect(again.pid).not.toBe(vm.pid);
    expect((await stat(disk)).ino).toBe(ino);
    // The port is leased again.
    const other = await lab.request({ powerState: "stopped", portForwards: request.boot.portForwards });
    await expect(lab.backend.create(other)).rejects.toThrow(`is the VM ${request.vmName}'s`);
    await lab.remove(reference);
    expect(lab.leftoversOf(reference)).toEqual([]);
  });

  it("a grown disk has a grown file system after the next start", async () => {
    const { request, vm, reference } = await lab.create({ statefulDiskMiB: 40 });
    const sizeInGuest = async () =>
      Number(/stateful disk: (\d+) MiB/.exec(await lab.console(vm))?.[1] ?? Number.NaN);
    await expect.poll(sizeInGuest, { timeout: 20_000 }).toBeLessThan(40);
    const off = { ...request.settings, powerState: "stopped" } as const;
    const boot = { ...request.boot, statefulDiskMiB: 120 };
    await lab.update(reference, { ...request, boot });
    await lab.update(reference, { ...request, boot, settings: off });
    await lab.update(reference, { ...request, boot });
    await expect.poll(sizeInGuest, { timeout: 20_000 }).toBeGreaterThan(90);
    expect(lab.notices.join("\n")).not.toContain("keeps its size");
    await lab.remove(reference);
    expect(lab.leftoversOf(reference)).toEqual([]);
  });
});

async function forwardTo80() {
  return [{ hostPort: await freePort(), guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }] as const;
}

const ORDERS = `#!/bin/sh
while sleep 0.3; do
  read -r order < /var/order
  case $order in
    panic) kill -QUIT 1 ;; # init restarts as what inittab says: it ends
    halt) halt -f ;;
  esac
done
`;

/** Makes the guest take orders from a file of its root; opening it again shows what the host has written since. */
async function obey(root: string): Promise<void> {
  await writeFile(join(root, "var/order"), "none\n");
  await writeFile(join(root, "usr/bin/orders"), ORDERS, { mode: 0o755 });
  const inittab = join(root, "etc/inittab");
  await writeFile(
    inittab,
    `${await readFile(inittab, "utf8")}::respawn:/usr/bin/orders\n::restart:/bin/false\n`,
  );
}

/** Gives the guest of a VM an order. */
async function order({ consoleLog }: VmOutputs, what: "none" | "panic" | "halt"): Promise<void> {
  const root = /my root is \S+?:(\S+) /.exec(await readFile(consoleLog, "utf8"))?.[1];
  if (root === undefined) throw new Error("the guest has not told its root yet");
  await writeFile(join(root, "var/order"), `${what}\n`);
}
