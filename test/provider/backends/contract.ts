/** What every local back end does, on a real hypervisor with real guests. */

import { readFile, rm, writeFile } from "node:fs/promises";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import type {
  Backend,
  CreateRequest,
  UpdateRequest,
  VmOutputs,
  VmReference,
} from "../../../provider/backends/backend.js";
import { followConsole } from "../../../provider/console/follow.js";
import { MicroVmError } from "../../../provider/errors.js";
import { forget } from "../../../provider/host/forgotten.js";
import { vmPaths } from "../../../provider/host/paths.js";
import { isAlive } from "../../../provider/host/process.js";
import { type Phase, readRecord, type VmRecord, writeRecord } from "../../../provider/host/record.js";
import { freePort } from "../../lab/nfs.js";
import { LocalLab, referenceOf, type VmChoice } from "./local-lab.js";

/** Where the contract is run. */
export interface ContractPlace {
  readonly backend: Backend;
  readonly kernel: string;
}

const RECORD_POLL_MILLISECONDS = 2;

/** The record of a VM, once it is as wanted. */
async function untilPhase(request: CreateRequest, wanted: (record: VmRecord) => boolean): Promise<VmRecord> {
  for (;;) {
    const record = await readRecord(request.stateDirectory, request.vmName).catch(() => undefined);
    if (record !== undefined && wanted(record)) return record;
    await new Promise((resolve) => setTimeout(resolve, RECORD_POLL_MILLISECONDS));
  }
}

/** What an HTTP server on a port of this host says. */
async function answerOn(port: number): Promise<string> {
  return await (await fetch(`http://127.0.0.1:${port}/`)).text();
}

/** Defines the tests of the contract. */
export function testLocalBackend(title: string, place: ContractPlace): void {
  describe(title, () => {
    let lab: LocalLab;
    beforeAll(async () => {
      lab = await LocalLab.open(place.backend, place.kernel);
    });
    afterAll(async () => await lab.close());

    const create = async (choice: VmChoice = {}) => {
      const request = await lab.request(choice);
      const vm = await place.backend.create(request);
      return { request, vm, reference: referenceOf(request, vm) };
    };
    const update = async (reference: VmReference, request: CreateRequest) => {
      const { boot, settings, signal, notice } = request;
      return await lab.backend.update({ reference, boot, settings, signal, notice } satisfies UpdateRequest);
    };
    const remove = async (reference: VmReference, shutdownTimeoutSeconds = 20) => {
      const { signal } = new AbortController();
      await place.backend.remove({
        reference,
        shutdownTimeoutSeconds,
        signal,
        notice: (line) => lab.notices.push(line),
      });
    };
    /** The error of a create that fails and leaves nothing. */
    const failureOf = async (request: CreateRequest): Promise<MicroVmError> => {
      const error: unknown = await place.backend.create(request).then(
        async (vm) => await remove(referenceOf(request, vm), 0),
        (reason: unknown) => reason,
      );
      expect(lab.leftoversOf(request)).toEqual([]);
      if (!(error instanceof MicroVmError))
        throw new Error("the create did not fail as expected", { cause: error });
      return error;
    };

    describe("a VM on an NFS root", () => {
      let request: CreateRequest;
      let vm: VmOutputs;
      let reference: VmReference;
      let hostPort: number;

      it("boots until the guest has proved its root", async () => {
        hostPort = await freePort();
        const portForwards = [
          { hostPort, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" },
        ] as const;
        ({ request, vm, reference } = await create({ portForwards }));
        expect(vm).toMatchObject({ state: "running", rootEvidence: "proved", guestIp: "10.0.2.15" });
        await expect.poll(async () => await lab.console(vm), { timeout: 20_000 }).toContain("guest: ready");
        expect(await lab.console(vm)).toContain(`guest: my root is 10.0.2.2:${lab.folder}/complete (nfs)`);
        expect(await readRecord(lab.stateDirectory, request.vmName)).toMatchObject({
          phase: "ready",
          proved: true,
        });
        expect(lab.notices.join("\n")).toMatch(/waiting for the .* to mount 10\.0\.2\.2:.* over NFS/);
      });

      it("is seen as it is", async () => {
        expect(await place.backend.observe(reference)).toEqual(vm);
      });

      it("has a bounded console log", async () => {
        const limits = await readFile(`/proc/${vm.pid}/limits`, "utf8");
        expect(limits).toMatch(/^Max file size\s+67108864\s/m);
      });

      it("answers on a forwarded port, and on another one after an update", async () => {
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
        expect((await update(reference, request)).pid).toBe(vm.pid);
        expect(await answerOn(other)).toBe(answer);
        await expect(answerOn(hostPort)).rejects.toThrow();
      });

      it("cannot take a port that another program has", async () => {
        const portForwards = [
          { hostPort: lab.server.nfsPort, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" },
        ] as const;
        const asked = { ...request, boot: { ...request.boot, portForwards } };
        await expect(update(reference, asked)).rejects.toMatchObject({ code: "port-taken" });
        expect(await place.backend.observe(reference)).toEqual(vm);
      });

      it("is paused and goes on as the same process", async () => {
        const { settings } = request;
        const paused = await update(reference, {
          ...request,
          settings: { ...settings, powerState: "paused" },
        });
        expect(paused).toMatchObject({ state: "paused", rootEvidence: "proved", pid: vm.pid });
        expect((await place.backend.observe(reference)).state).toBe("paused");
        expect(await update(reference, request)).toEqual(vm);
      });

      it("stops in an orderly way and starts again from its own copies", async () => {
        const { settings } = request;
        const stopped = await update(reference, {
          ...request,
          settings: { ...settings, powerState: "stopped" },
        });
        expect(stopped).toMatchObject({ state: "stopped", rootEvidence: "none" });
        expect(stopped.pid).toBeUndefined();
        expect(await lab.console(vm)).toContain("guest: goes off in an orderly way");
        expect((await place.backend.observe(reference)).state).toBe("stopped");
        const again = await update(reference, request);
        expect(again).toMatchObject({ state: "running", rootEvidence: "proved" });
        expect(again.pid).not.toBe(vm.pid);
        vm = again;
      });

      it("is seen as stopped when it has died, and an update repairs it", async () => {
        process.kill(vm.pid ?? 0, "SIGKILL");
        await expect.poll(async () => (await place.backend.observe(reference)).state).toBe("stopped");
        vm = await update(reference, request);
        expect(vm).toMatchObject({ state: "running", rootEvidence: "proved" });
      });

      it("is started anew when an earlier start was killed before it was recorded", async () => {
        const record = await readRecord(lab.stateDirectory, request.vmName);
        if (record?.vmm === undefined) throw new Error("no VMM is recorded");
        await writeRecord(lab.stateDirectory, {
          ...record,
          phase: "prepared",
          vmm: undefined,
          proved: false,
        });
        const again = await update(reference, request);
        expect(again).toMatchObject({ state: "running", rootEvidence: "proved" });
        expect(isAlive(record.vmm)).toBe(false);
        vm = again;
      });

      it("is proved by an update when an earlier one was killed while it waited", async () => {
        const record = await readRecord(lab.stateDirectory, request.vmName);
        if (record === undefined) throw new Error("there is no record");
        await writeRecord(lab.stateDirectory, { ...record, phase: "started", proved: false });
        expect(await place.backend.observe(reference)).toMatchObject({
          state: "running",
          rootEvidence: "none",
        });
        expect(await update(reference, request)).toEqual(vm);
      });

      it("is gone for any other instance", async () => {
        const other = { ...reference, instance: "0123456789abcdef" };
        expect(await place.backend.observe(other)).toMatchObject({ state: "gone" });
        await remove(other);
        expect((await place.backend.observe(reference)).state).toBe("running");
      });

      it("is another host's where the state directory is not the recorded one", async () => {
        const foreign = { ...reference, hostId: "f".repeat(32) };
        await expect(place.backend.observe(foreign)).rejects.toMatchObject({ code: "other-host" });
        await expect(remove(foreign)).rejects.toMatchObject({ code: "other-host" });
        const elsewhere = { ...reference, stateDirectory: `${lab.folder}/nowhere` };
        await expect(place.backend.observe(elsewhere)).rejects.toMatchObject({ code: "other-host" });
      });

      it("still runs when its control socket has vanished, and can be removed, twice", async () => {
        const record = await readRecord(lab.stateDirectory, request.vmName);
        await rm(record?.controlSocket ?? "");
        expect((await place.backend.observe(reference)).state).toBe("running");
        const { settings } = request;
        const paused = { ...request, settings: { ...settings, powerState: "paused" } } as const;
        await expect(update(reference, paused)).rejects.toMatchObject({ code: "vmm-failed" });
        await remove(reference);
        expect(lab.leftoversOf(reference)).toEqual([]);
        await remove(reference);
        expect((await place.backend.observe(reference)).state).toBe("gone");
        await expect(update(reference, request)).rejects.toMatchObject({ code: "vmm-failed" });
      });
    });

    it("returns from create soon after the line that decides it", async () => {
      const request = await lab.request({ console: "guest: ready" });
      const stop = new AbortController();
      let seenAt = Infinity;
      const record = untilPhase(request, () => true);
      const following = (async () => {
        await record;
        const { consoleLog } = vmPaths(request.stateDirectory, request.vmName);
        for await (const { lines } of followConsole(consoleLog, { signal: stop.signal })) {
          if (lines.some((line) => line.includes("guest: ready")))
            seenAt = Math.min(seenAt, performance.now());
        }
      })();
      const vm = await place.backend.create(request);
      const milliseconds = performance.now() - seenAt;
      stop.abort();
      await following;
      console.log(`create returned ${milliseconds.toFixed(1)} ms after the deciding line`);
      expect(milliseconds).toBeLessThan(1000);
      await remove(referenceOf(request, vm));
    });

    describe("a failed boot leaves nothing and names its cause", () => {
      it.each([
        ["missing", /no (?:executable|init program)/],
        ["wrong-format", /error -8|Exec format error/],
        ["exits", /init program ended \(exit status 1\)/],
      ] as const)("an init that is %s", async (guest, cause) => {
        const error = await failureOf(await lab.request({ guest }));
        expect(error.code).toBe("boot-failed");
        expect(error.message).toMatch(cause);
        expect(error.message).toMatch(/The last 20 lines of the guest's console:\n( {2}\| .*\n?){20}$/);
      });

      it("an init= that does not exist", async () => {
        const error = await failureOf(await lab.request({ kernelArgs: ["panic=-1", "init=/nonexist"] }));
        expect(error.code).toBe("boot-failed");
        expect(error.message).toContain("/nonexist");
      });

      it("an export that the server does not have, long before the kernel gives up", async () => {
        const begun = performance.now();
        const error = await failureOf(await lab.request({ nfsPath: `${lab.folder}/nowhere` }));
        expect(["nfs-unreachable", "boot-failed"]).toContain(error.code);
        expect(error.message).toContain("nowhere");
        expect(performance.now() - begun).toBeLessThan(60_000);
      });

      it("an NFS server that stops during the boot", async () => {
        const server = await lab.secondServer();
        const request = await lab.request({ server });
        const failure = failureOf(request);
        await untilPhase(request, ({ phase }) => phase === "started");
        await server.kill();
        expect(await failure).toMatchObject({ code: "nfs-unreachable" });
      });

      it("a hypervisor that is killed during the boot", async () => {
        const request = await lab.request();
        const failure = failureOf(request);
        const record = await untilPhase(request, ({ phase }) => phase === "started");
        process.kill(record.vmm?.pid ?? 0, "SIGKILL");
        const error = await failure;
        expect(error).toMatchObject({ code: "vmm-failed" });
      });

      it("a readiness pattern that never matches", async () => {
        const error = await failureOf(await lab.request({ console: "never said", timeoutSeconds: 12 }));
        expect(error).toMatchObject({ code: "boot-timeout", input: "readiness.timeoutSeconds" });
        expect(error.message).toMatch(/no proof within 12 s: still waiting for/);
      });

      it("a kernel that is no longer what was planned", async () => {
        const request = await lab.request();
        const kernel = { ...request.boot.kernel, sha256: "0".repeat(64) };
        const failure = failureOf({ ...request, boot: { ...request.boot, kernel } });
        expect(await failure).toMatchObject({ code: "file-unusable", input: "kernel" });
      });
    });

    describe("an interrupted create leaves nothing", () => {
      it.each<Phase>(["claimed", "prepared", "spawned", "started"])("in phase %s", async (phase) => {
        const stop = new AbortController();
        const request = await lab.request({ signal: stop.signal });
        const failure = failureOf(request);
        const phases: Phase[] = ["claimed", "prepared", "spawned", "started", "ready"];
        await untilPhase(request, (record) => phases.indexOf(record.phase) >= phases.indexOf(phase));
        stop.abort();
        expect(await failure).toMatchObject({ code: "interrupted" });
      });

      it("before it began", async () => {
        const request = await lab.request({ signal: AbortSignal.abort() });
        expect(await failureOf(request)).toMatchObject({ code: "interrupted" });
      });
    });

    it("gives a name to one of two creates only", async () => {
      const vmName = "vm-twice";
      const requests = [
        await lab.request({ vmName, owner: "urn:a" }),
        await lab.request({ vmName, owner: "urn:b" }),
      ];
      const results = await Promise.allSettled(
        requests.map(async (request) => await place.backend.create(request)),
      );
      const made = results.flatMap((result, index) =>
        result.status === "fulfilled" ? [{ vm: result.value, request: requests[index] }] : [],
      );
      const failures = results.flatMap((result) => (result.status === "rejected" ? [result.reason] : []));
      expect(failures).toMatchObject([{ code: "name-taken" }]);
      const [first] = made;
      if (first?.request === undefined) throw new Error("none was made");
      expect((await place.backend.observe(referenceOf(first.request, first.vm))).state).toBe("running");
      await remove(referenceOf(first.request, first.vm));
      for (const request of requests) expect(lab.leftoversOf(request)).toEqual([]);
    });

    it("makes a VM that is paused once it is proved", async () => {
      const { vm, reference, request } = await create({ powerState: "paused" });
      expect(vm).toMatchObject({ state: "paused", rootEvidence: "proved" });
      const { settings } = request;
      const running = await update(reference, {
        ...request,
        settings: { ...settings, powerState: "running" },
      });
      expect(running).toMatchObject({ state: "running", pid: vm.pid });
      await remove(reference);
      expect(lab.leftoversOf(reference)).toEqual([]);
    });

    it("makes a VM that is never started until it is asked to", async () => {
      const { vm, reference, request } = await create({ powerState: "stopped" });
      expect(vm).toMatchObject({ state: "stopped", rootEvidence: "none" });
      expect(vm.pid).toBeUndefined();
      const { settings } = request;
      const running = await update(reference, {
        ...request,
        settings: { ...settings, powerState: "running" },
      });
      expect(running).toMatchObject({ state: "running", rootEvidence: "proved" });
      await remove(reference);
      expect(lab.leftoversOf(reference)).toEqual([]);
    });

    it("forces off a guest that does not hear the power button", async () => {
      const { reference } = await create({ guest: "deaf" });
      await remove(reference, 2);
      expect(lab.leftoversOf(reference)).toEqual([]);
    });

    it("boots a silent guest by the calm after its start", async () => {
      const { vm, reference } = await create({ guest: "silent" });
      expect(vm.rootEvidence).toBe("proved");
      await remove(reference, 0);
      expect(lab.leftoversOf(reference)).toEqual([]);
    });

    it("keeps and grows a stateful disk", async () => {
      const { vm, reference, request } = await create({ statefulDiskMiB: 80 });
      await expect
        .poll(async () => await lab.console(vm), { timeout: 20_000 })
        .toMatch(/guest: stateful disk: \d+ MiB/);
      const grown = { ...request, boot: { ...request.boot, statefulDiskMiB: 160 } };
      expect((await update(reference, grown)).pid).toBe(vm.pid);
      await expect
        .poll(async () => await lab.console(vm), { timeout: 20_000 })
        .toMatch(/\[vda\] new size: 327680 512-byte/);
      await rm(vmPaths(lab.stateDirectory, request.vmName).statefulDisk);
      expect((await place.backend.observe(reference)).state).toBe("damaged");
      await expect(update(reference, grown)).rejects.toMatchObject({ code: "vmm-failed" });
      await remove(reference);
      expect(lab.leftoversOf(reference)).toEqual([]);
    });

    it("boots a disk root with a stateful disk over it", async () => {
      const { vm, reference } = await create({ disk: true, statefulDiskMiB: 32 });
      expect(vm).toMatchObject({ state: "running", rootEvidence: "proved" });
      await expect.poll(async () => await lab.console(vm), { timeout: 20_000 }).toContain("guest: ready");
      await remove(reference);
      expect(lab.leftoversOf(reference)).toEqual([]);
    });

    it("removes what is only half there", async () => {
      const { vm, reference, request } = await create({ powerState: "stopped" });
      await rm(vmPaths(lab.stateDirectory, request.vmName).kernel);
      expect((await place.backend.observe(reference)).state).toBe("damaged");
      await remove(reference);
      expect(lab.leftoversOf(reference)).toEqual([]);
      expect(vm.state).toBe("stopped");
    });

    it("takes a forgotten VM as gone", async () => {
      const { reference, request } = await create({ powerState: "stopped" });
      await forget(lab.stateDirectory, request.vmName, () => undefined);
      expect((await place.backend.observe(reference)).state).toBe("gone");
      await remove(reference);
      await rm(`${lab.stateDirectory}/.lost`, { recursive: true });
      await rm(`${lab.stateDirectory}/.forgotten`, { recursive: true });
    });

    it("does not take a torn record for a VM that is gone", async () => {
      const { reference, request } = await create({ powerState: "stopped" });
      const { record } = vmPaths(lab.stateDirectory, request.vmName);
      const text = await readFile(record, "utf8");
      await writeFile(record, text.slice(0, 100));
      await expect(place.backend.observe(reference)).rejects.toMatchObject({ code: "record-unreadable" });
      await writeFile(record, text);
      await remove(reference);
      expect(lab.leftoversOf(reference)).toEqual([]);
    });
  });
}
