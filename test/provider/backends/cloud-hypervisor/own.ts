/** What is Cloud Hypervisor's own in the life of a VM, on the real one: it grows in place, and shuts itself in. */

import { readdirSync, readFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import type { Backend, LocalBackend, VmOutputs } from "../../../../provider/backends/backend.js";
import { CloudHypervisorApi } from "../../../../provider/backends/cloud-hypervisor/api.js";
import type { VmInfoBody } from "../../../../provider/backends/cloud-hypervisor/schemas.js";
import { vmPaths } from "../../../../provider/host/paths.js";
import { readRecord } from "../../../../provider/host/record.js";
import { socketPaths } from "../../../../provider/host/runtime-directory.js";
import { LocalLab, referenceOf } from "../local-lab.js";

const MIB = 1_048_576;

/** Defines the tests. */
export function testCloudHypervisor(backend: Backend, options: LocalBackend): void {
  describe("a VM on cloud-hypervisor", () => {
    let lab: LocalLab;
    beforeAll(async () => {
      lab = await LocalLab.openScripted(backend, options);
    });
    afterAll(async () => await lab.close());

    const socketOf = async (vmName: string): Promise<string> =>
      (await readRecord(lab.stateDirectory, vmName))?.controlSocket ?? "";

    async function infoOf(vmName: string): Promise<VmInfoBody | undefined> {
      const api = await CloudHypervisorApi.connect(await socketOf(vmName));
      try {
        return await api.info();
      } finally {
        api.close();
      }
    }

    it.each(["running", "paused"] as const)(
      "grows in place while it is %s, and keeps that",
      async (powerState) => {
        const room = { vcpus: 1, maxVcpus: 4, memoryMiB: 256, maxMemoryMiB: 1024, statefulDiskMiB: 32 };
        const { vm, reference, request } = await lab.create({ ...room, powerState });
        const { vmName } = request;
        const disks = request.boot.disks.map((disk) => ({ ...disk, numQueues: 3 }));
        const size = { vcpus: 3, memoryMiB: 512, statefulDiskMiB: 96, disks };
        const grown = { ...request, boot: { ...request.boot, ...size } };
        const after = await lab.update(reference, grown);
        expect(after).toEqual({ ...vm, requested: { vcpus: 3, memoryMiB: 512 } });
        expect(await lab.backend.observe(reference)).toEqual(after);
        const big = { config: { cpus: { boot_vcpus: 3, max_vcpus: 4 }, memory: { size: 512 * MIB } } };
        expect(await infoOf(vmName)).toMatchObject(big);
        expect((await stat(vmPaths(lab.stateDirectory, vmName).statefulDisk)).size).toBe(96 * MIB);
        // What was asked for before it could be recorded is asked for again.
        expect(await lab.update(reference, { ...request, boot: { ...grown.boot, vcpus: 2 } })).toMatchObject({
          pid: vm.pid,
        });
        expect(await lab.update(reference, grown)).toMatchObject({ pid: vm.pid });

        const { settings } = request;
        await lab.update(reference, { ...grown, settings: { ...settings, powerState: "stopped" } });
        const again = await lab.update(reference, {
          ...grown,
          settings: { ...settings, powerState: "running" },
        });
        expect(again.pid).not.toBe(vm.pid);
        expect(again).not.toHaveProperty("requested");
        expect(await infoOf(vmName)).toMatchObject(big);
        await lab.remove(reference);
        expect(lab.leftoversOf(reference)).toEqual([]);
      },
    );

    it("is asked for no more than it was made with room for", async () => {
      const { vm, reference, request } = await lab.create({ maxVcpus: 2 });
      const boot = { ...request.boot, vcpus: 3 };
      await expect(lab.update(reference, { ...request, boot })).rejects.toThrow(
        /Requested vCPUs exceed maximum/,
      );
      expect(await lab.backend.observe(reference)).toEqual(vm);
      await lab.remove(reference);
    });

    it("is seen as stopped once its guest has powered off", async () => {
      const request = await lab.request({ guest: "powers-off", console: "guest: ready" });
      const made: VmOutputs | Error = await backend.create(request).catch((error: Error) => error);
      if (made instanceof Error) {
        // It may be off before create has looked at the VMM for the last time.
        expect(made.message).toMatch(/the VM ended right after the guest had proved its root/);
      } else {
        const reference = referenceOf(request, made);
        await expect.poll(async () => (await backend.observe(reference)).state).toBe("stopped");
        await lab.remove(reference);
      }
      expect(lab.leftoversOf(request)).toEqual([]);
    });

    it("keeps its sockets and files from others, with seccomp and Landlock on", async () => {
      const { vm, reference, request } = await lab.create({ statefulDiskMiB: 80 });
      const { vmName } = request;
      const { control, vsock, vsockDirectory } = socketPaths(await socketOf(vmName));
      const paths = vmPaths(lab.stateDirectory, vmName);
      for (const path of [control, vsock, vsockDirectory, ...Object.values(paths)]) {
        const found = await stat(path).catch(() => undefined);
        if (found !== undefined) expect(`${path} ${(found.mode & 0o077).toString(8)}`).toBe(`${path} 0`);
      }
      const tasks = `/proc/${vm.pid}/task`;
      const modes = readdirSync(tasks).map(
        (task) => /^Seccomp:\s+(\d)/m.exec(readFileSync(`${tasks}/${task}/status`, "utf8"))?.[1],
      );
      // The main thread only waits for the others.
      expect(modes.filter((mode) => mode === "2").length).toBeGreaterThanOrEqual(modes.length - 1);
      const isWithout = lab.notices.some((line) =>
        line.includes(`${vmName}: Cloud Hypervisor runs without Landlock`),
      );
      expect(await infoOf(vmName)).toMatchObject({ config: { landlock_enable: !isWithout } });
      await lab.remove(reference);
    });

    it("loses its name for the console when its guest runs", async () => {
      const { vm, reference, request } = await lab.create();
      await expect(stat(vmPaths(lab.stateDirectory, request.vmName).serialName)).rejects.toThrow(/ENOENT/);
      expect(await readFile(vm.consoleLog, "utf8")).toContain("guest: ready");
      await lab.remove(reference);
    });

    it("does not share its address", async () => {
      const first = await lab.create();
      const request = await lab.request();
      const boot = { ...request.boot, link: first.request.boot.link };
      expect(await lab.failureOf({ ...request, boot })).toMatchObject({ code: "address-taken", input: "ip" });
      expect((await lab.backend.observe(first.reference)).state).toBe("running");
      await lab.remove(first.reference);
    });
  });
}
