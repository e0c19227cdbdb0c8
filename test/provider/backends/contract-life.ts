/** The life of one VM, from its first boot to its removal: a part of the contract of local back ends. */

import { once } from "node:events";
import { readFile, rm } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";

import { describe, expect, it } from "vitest";

import type { CreateRequest, VmOutputs, VmReference } from "../../../provider/backends/backend.js";
import { isAlive } from "../../../provider/host/process.js";
import { readRecord, writeRecord } from "../../../provider/host/record.js";
import { freePort } from "../../lab/nfs.js";
import type { ContractTests } from "./contract.js";
import type { LocalLab } from "./local-lab.js";

/** Defines the tests. */
export function testLife(labOf: () => LocalLab, { onLinux, onOwn, direct, ownDirect }: ContractTests): void {
  describe("a VM on an NFS root", () => {
    let request: CreateRequest;
    let vm: VmOutputs;
    let reference: VmReference;
    let hostPort: number;

    it("boots until the guest has proved its root", async () => {
      const lab = labOf();
      hostPort = await freePort();
      const portForwards = [{ hostPort, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }] as const;
      ({ request, vm, reference } = await lab.create(lab.isAttached || lab.isServed ? {} : { portForwards }));
      const { guestAddress: guestIp } = request.boot.link;
      expect(vm).toMatchObject({ state: "running", rootEvidence: "proved", guestIp });
      await expect.poll(async () => await lab.console(vm), { timeout: 20_000 }).toContain("guest: ready");
      expect(await readRecord(lab.stateDirectory, request.vmName)).toMatchObject({
        phase: "ready",
        proved: true,
      });
    });

    onLinux("says what it waited for, and runs on the named root", async () => {
      const lab = labOf();
      const { gatewayAddress } = request.boot.link;
      expect(await lab.console(vm)).toContain(
        `guest: my root is ${gatewayAddress}:${lab.folder}/complete (nfs)`,
      );
      expect(lab.notices.join("\n")).toMatch(/waiting for the .* to mount [0-9.]+:.* over NFS/);
    });

    it("is seen as it is", async () => {
      const lab = labOf();
      expect(await lab.backend.observe(reference)).toEqual(vm);
    });

    onOwn("has a bounded console log", async () => {
      const limits = await readFile(`/proc/${vm.pid}/limits`, "utf8");
      expect(limits).toMatch(/^Max file size\s+67108864\s/m);
    });

    onLinux("answers on a forwarded port, and on another one after an update", async () => {
      const lab = labOf();
      // The guest's server starts after it has said that it is ready.
      await expect
        .poll(async () => await answerOn(hostPort).catch(String), { timeout: 20_000 })
        .toContain("my root is");
      const answer = await answerOn(hostPort);
      const other = await freePort();
      const portForwards = [
        { hostPort: other, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" },
      ] as const;
      request = { ...request, boot: { ...request.boot, portForwards } };
      expect((await lab.update(reference, request)).pid).toBe(vm.pid);
      expect(await answerOn(other)).toBe(answer);
      await expect(answerOn(hostPort)).rejects.toThrow();
    });

    ownDirect("cannot take a port that another program has", "its server chooses host ports", async () => {
      const lab = labOf();
      const other = createServer().listen(0, "127.0.0.1");
      await once(other, "listening");
      const { port } = other.address() as AddressInfo;
      const portForwards = [
        { hostPort: port, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" },
      ] as const;
      const asked = { ...request, boot: { ...request.boot, portForwards } };
      await expect(lab.update(reference, asked)).rejects.toMatchObject({ code: "port-taken" });
      other.close();
      expect(await lab.backend.observe(reference)).toEqual(vm);
    });

    it("is paused and goes on as the same process", async () => {
      const lab = labOf();
      const { settings } = request;
      const paused = await lab.update(reference, {
        ...request,
        settings: { ...settings, powerState: "paused" },
      });
      expect(paused).toEqual({ ...vm, state: "paused" });
      expect((await lab.backend.observe(reference)).state).toBe("paused");
      expect(await lab.update(reference, request)).toEqual(vm);
    });

    it("stops and starts again from its own copies", async () => {
      const lab = labOf();
      const { settings } = request;
      const stopped = await lab.update(reference, {
        ...request,
        settings: { ...settings, powerState: "stopped" },
      });
      expect(stopped).toMatchObject({ state: "stopped", rootEvidence: "none" });
      expect(stopped.pid).toBeUndefined();
      expect((await lab.backend.observe(reference)).state).toBe("stopped");
      const again = await lab.update(reference, request);
      expect(again).toMatchObject({ state: "running", rootEvidence: "proved" });
      if (!lab.isAttached) expect(again.pid).not.toBe(vm.pid);
      vm = again;
    });

    onLinux("stops in an orderly way", async () => {
      expect(await readFile(`${vm.consoleLog}.1`, "utf8")).toContain("guest: goes off in an orderly way");
    });

    onOwn("is seen as stopped when it has died, and an update repairs it", async () => {
      const lab = labOf();
      process.kill(vm.pid ?? 0, "SIGKILL");
      await expect.poll(async () => (await lab.backend.observe(reference)).state).toBe("stopped");
      vm = await lab.update(reference, request);
      expect(vm).toMatchObject({ state: "running", rootEvidence: "proved" });
    });

    onOwn("is started anew when an earlier start was killed before it was recorded", async () => {
      const lab = labOf();
      const record = await readRecord(lab.stateDirectory, request.vmName);
      if (record?.vmm === undefined) throw new Error("no VMM is recorded");
      await writeRecord(lab.stateDirectory, {
        ...record,
        phase: "prepared",
        vmm: undefined,
        proved: false,
      });
      await lab.untilSeen();
      const again = await lab.update(reference, request);
      expect(again).toMatchObject({ state: "running", rootEvidence: "proved" });
      expect(isAlive(record.vmm)).toBe(false);
      vm = again;
    });

    it("is proved by an update when an earlier one was killed while it waited", async () => {
      const lab = labOf();
      const record = await readRecord(lab.stateDirectory, request.vmName);
      if (record === undefined) throw new Error("there is no record");
      await writeRecord(lab.stateDirectory, { ...record, phase: "started", proved: false });
      await lab.untilSeen();
      expect(await lab.backend.observe(reference)).toMatchObject({
        state: "running",
        rootEvidence: "none",
      });
      expect(await lab.update(reference, request)).toEqual(vm);
    });

    it("is gone for any other instance", async () => {
      const lab = labOf();
      const other = { ...reference, instance: "0123456789abcdef" };
      expect(await lab.backend.observe(other)).toMatchObject({ state: "gone" });
      await lab.remove(other);
      expect((await lab.backend.observe(reference)).state).toBe("running");
    });

    const noDirectory = "what it knows is its server's";
    direct("is another host's where the state directory is not the recorded one", noDirectory, async () => {
      const lab = labOf();
      const foreign = { ...reference, hostId: "f".repeat(32) };
      await expect(lab.backend.observe(foreign)).rejects.toMatchObject({ code: "other-host" });
      await expect(lab.remove(foreign)).rejects.toMatchObject({ code: "other-host" });
      const elsewhere = { ...reference, stateDirectory: `${lab.folder}/nowhere` };
      await expect(lab.backend.observe(elsewhere)).rejects.toMatchObject({ code: "other-host" });
    });

    onOwn("still runs when its control socket has vanished", async () => {
      const lab = labOf();
      const record = await readRecord(lab.stateDirectory, request.vmName);
      await rm(record?.controlSocket ?? "");
      const { settings } = request;
      const paused = { ...request, settings: { ...settings, powerState: "paused" } } as const;
      await expect(lab.update(reference, paused)).rejects.toMatchObject({ code: "vmm-failed" });
      // Running or paused? That cannot be told.
      await expect(lab.backend.observe(reference)).rejects.toMatchObject({ code: lab.failureCode });
    });

    it("can be removed, twice", async () => {
      const lab = labOf();
      await lab.remove(reference);
      expect(lab.leftoversOf(reference)).toEqual([]);
      await lab.remove(reference);
      expect((await lab.backend.observe(reference)).state).toBe("gone");
      await expect(lab.update(reference, request)).rejects.toMatchObject({ code: lab.failureCode });
    });
  });
}

/** What an HTTP server on a port of this host says. */
async function answerOn(port: number): Promise<string> {
  return await (await fetch(`http://127.0.0.1:${port}/`)).text();
}
