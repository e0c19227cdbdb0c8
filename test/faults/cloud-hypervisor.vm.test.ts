import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import type { CreateRequest, VmReference } from "../../provider/backends/backend.js";
import { vmmsOfInstance } from "../../provider/backends/local/runs.js";
import { isAlive } from "../../provider/host/process.js";
import { readRecord, type VmRecord, writeRecord } from "../../provider/host/record.js";
import { isInNamespace, runInNamespace, whyNoNamespace } from "../lab/namespace.js";
import { cloudHypervisorBinary } from "../lab/programs.js";
import { LocalLab, type VmChoice } from "../provider/backends/local-lab.js";
import { backEnd, type BackEndOrder } from "./back-end-process.js";

const noBinary = "cloud-hypervisor is not on PATH, and CLOUD_HYPERVISOR is not set";
const reason = cloudHypervisorBinary() === undefined ? noBinary : whyNoNamespace();
const title = "faults on cloud-hypervisor";

if (reason !== undefined) describe(title, () => it.skip(`skipped: ${reason}`, () => undefined));
else if (isInNamespace()) faults();
else it(`${title}, in a network namespace of its own`, () => expect(runInNamespace(__filename)).toBe(0));

/** The steps of a create, as its record and the host show them. */
const steps: readonly (readonly [name: string, isReached: (record: VmRecord | undefined) => boolean])[] = [
  ["claimed", (record) => record !== undefined],
  ["lease of the address", () => rules("ip", "-j", "link").includes("microvm0")],
  ["tap", () => /mvm[0-9a-f]{12}/.test(rules("ip", "-j", "link"))],
  ["rules", () => rules("nft", "list", "ruleset").includes("microvm ")],
  ["process", (record) => record !== undefined && existsSync(record.controlSocket)],
  ["spawned", (record) => record?.vmm !== undefined],
  ["started", (record) => record?.phase === "started" || record?.phase === "ready"],
  ["ready", (record) => record?.phase === "ready"],
];

function rules(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: "utf8" });
}

function faults(): void {
  describe(title, () => {
    let lab: LocalLab;
    let before: string;
    beforeAll(async () => {
      lab = await LocalLab.openScripted(backEnd, { type: "cloud-hypervisor" });
      before = hostNetwork();
    });
    afterAll(async () => await lab.close());

    const choice: VmChoice = {
      maxVcpus: 4,
      maxMemoryMiB: 1024,
      statefulDiskMiB: 32,
      portForwards: [{ hostPort: 18_080, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }],
    };

    const recordOf = async ({ vmName }: CreateRequest): Promise<VmRecord | undefined> =>
      await readRecord(lab.stateDirectory, vmName).catch(() => undefined);

    /** Waits for a step; false when the operation was over first. */
    async function until(operation: Operation, request: CreateRequest, step: string): Promise<boolean> {
      const isReached = steps.find(([name]) => name === step)?.[1];
      if (isReached === undefined) throw new Error(`there is no step ${step}`);
      while (!operation.isOver) {
        if (isReached(await recordOf(request))) return true;
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      return false;
    }

    /** Removes what is left of a VM, and holds that it was all. */
    async function removed(request: CreateRequest): Promise<void> {
      await lab.remove(referenceOf(request), 0);
      // A reclaimed VM's folder is kept there, for its disks.
      rmSync(join(lab.stateDirectory, ".lost"), { recursive: true, force: true });
      expect(lab.leftoversOf(request)).toEqual([]);
      expect(hostNetwork()).toBe(before);
    }

    const moments = steps.flatMap(([name]) => [0, 20].map((delay) => [name, delay] as const));

    it.each(moments)(
      "the process of create is killed at %s and %i ms: the next create makes it",
      async (step, delay) => {
        const request = await lab.request(choice);
        const operation = begin("create", request);
        await until(operation, request, step);
        await new Promise((resolve) => setTimeout(resolve, delay));
        await operation.kill();
        const seen = await lab.backend.observe(referenceOf(request));
        expect(["gone", "damaged", "stopped", "running"]).toContain(seen.state);
        const next = { ...request, instance: "fedcba9876543210" };
        const vm = await lab.backend.create(next);
        expect(vm).toMatchObject({ state: "running", rootEvidence: "proved" });
        expect(
          lab
            .leftoversOf({ vmName: "-", instance: request.instance })
            .filter((path) => !path.includes("/.lost/")),
        ).toEqual([]);
        await removed(next);
      },
    );

    it.each(["process", "spawned", "started"])(
      "the VMM is killed at %s of create, which leaves nothing",
      async (step) => {
        const request = await lab.request({ ...choice, console: "never said" });
        const operation = begin("create", request);
        expect(await until(operation, request, step)).toBe(true);
        for (const { pid } of vmmsOfInstance(request.instance)) process.kill(pid, "SIGKILL");
        expect((await operation.ended).code).toBe("vmm-failed");
        expect(lab.leftoversOf(request)).toEqual([]);
        expect(hostNetwork()).toBe(before);
      },
    );

    it.each([0, 10, 20, 40, 60, 100])(
      "the process of a resize is killed after %i ms: the next one ends it",
      async (delay) => {
        const request = await lab.request(choice);
        const { pid } = await lab.backend.create(request);
        const wanted = grown(request);
        const operation = begin("update", wanted);
        await operation.hasBegun;
        await new Promise((resolve) => setTimeout(resolve, delay));
        await operation.kill();
        expect(await lab.backend.observe(referenceOf(request))).toMatchObject({ state: "running", pid });
        const vm = await lab.update(referenceOf(request), wanted);
        expect(vm).toMatchObject({ state: "running", rootEvidence: "proved", pid });
        expect(await recordOf(request)).toMatchObject({
          boot: { vcpus: 3, memoryMiB: 512, statefulDiskMiB: 96 },
        });
        await removed(request);
      },
    );

    it.each([0, 20, 40, 80])(
      "the VMM is killed %i ms into a resize: it is told, seen as stopped, and repaired",
      async (delay) => {
        const request = await lab.request(choice);
        const { pid = 0 } = await lab.backend.create(request);
        const wanted = grown(request);
        const operation = begin("update", wanted);
        await operation.hasBegun;
        await new Promise((resolve) => setTimeout(resolve, delay));
        process.kill(pid, "SIGKILL");
        const { code } = await operation.ended;
        expect([undefined, "vmm-failed"]).toContain(code);
        // The update may have started it anew by itself.
        const seen = await lab.backend.observe(referenceOf(request));
        if (seen.pid === undefined) expect(seen.state).toBe("stopped");
        else expect(seen.pid).not.toBe(pid);
        const vm = await lab.update(referenceOf(request), wanted);
        expect(vm).toMatchObject({ state: "running", rootEvidence: "proved" });
        expect(vm.pid).not.toBe(pid);
        await removed(request);
      },
    );

    it.each([0, 20, 60, 150])(
      "the process of a remove is killed after %i ms: the next one ends it",
      async (delay) => {
        const request = await lab.request(choice);
        await lab.backend.create(request);
        const operation = begin("remove", request);
        await operation.hasBegun;
        await new Promise((resolve) => setTimeout(resolve, delay));
        await operation.kill();
        expect(["damaged", "gone", "running"]).toContain(
          (await lab.backend.observe(referenceOf(request))).state,
        );
        await removed(request);
      },
    );

    it("the API socket is removed: nothing is guessed, and the VM can be removed", async () => {
      const request = await lab.request(choice);
      await lab.backend.create(request);
      const record = await recordOf(request);
      rmSync(record?.controlSocket ?? "");
      await expect(lab.backend.observe(referenceOf(request))).rejects.toMatchObject({ code: "vmm-failed" });
      await removed(request);
      expect(record?.vmm !== undefined && isAlive(record.vmm)).toBe(false);
    });

    it("tap, rules and bridge are taken away by someone: the next start makes them again", async () => {
      const request = await lab.request(choice);
      await lab.backend.create(request);
      const { settings } = request;
      const reference = referenceOf(request);
      await lab.update(reference, { ...request, settings: { ...settings, powerState: "stopped" } });
      rules("nft", "flush", "ruleset");
      rules("ip", "link", "delete", "microvm0");
      expect(await lab.update(reference, request)).toMatchObject({
        state: "running",
        rootEvidence: "proved",
      });
      expect(rules("nft", "list", "ruleset")).toContain(request.instance);
      await removed(request);
    });

    it("the host reboots: the VM is seen as stopped, and the next up starts it", async () => {
      const request = await lab.request(choice);
      const { pid = 0 } = await lab.backend.create(request);
      const record = await recordOf(request);
      if (record?.vmm === undefined) throw new Error("no VMM is recorded");
      process.kill(pid, "SIGKILL");
      await expect.poll(() => record.vmm !== undefined && isAlive(record.vmm)).toBe(false);
      // What a reboot takes: the runtime directory, the network, the boot's id.
      rmSync(join(lab.folder, "run/pulumi-microvm"), { recursive: true });
      rules("nft", "flush", "ruleset");
      rules("ip", "link", "delete", "microvm0");
      await writeRecord(lab.stateDirectory, { ...record, vmm: { ...record.vmm, bootId: "of-before" } });
      expect(await lab.backend.observe(referenceOf(request))).toMatchObject({ state: "stopped" });
      const vm = await lab.update(referenceOf(request), request);
      expect(vm).toMatchObject({ state: "running", rootEvidence: "proved" });
      await removed(request);
    });

    it("16 VMs are made at once: no address and no CID is shared, and nothing is left of them", async () => {
      const requests = await Promise.all(
        Array.from({ length: 16 }, async (_, index) => await lab.request({ vmName: `many-${index}` })),
      );
      const made = await Promise.allSettled(
        requests.map(async (request) => await lab.backend.create(request)),
      );
      const failures = made.flatMap((result) => (result.status === "rejected" ? [result.reason] : []));
      for (const failure of failures) expect(failure).toMatchObject({ code: "address-taken", input: "ip" });
      const ups = made.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
      expect(ups.length).toBeGreaterThanOrEqual(14);
      expect(new Set(ups.map(({ guestIp }) => guestIp)).size).toBe(ups.length);
      await Promise.all(requests.map(async (request) => await lab.remove(referenceOf(request), 0)));
      for (const request of requests) expect(lab.leftoversOf(request)).toEqual([]);
      expect(hostNetwork()).toBe(before);
    });
  });
}

/** Starts an operation in a process of its own. */
function begin(what: BackEndOrder["what"], request: CreateRequest): Operation {
  const { signal: _, notice: __, ...rest } = request;
  return new Operation({ what, reference: referenceOf(request), request: rest });
}

function referenceOf({ vmName, instance, stateDirectory }: CreateRequest): VmReference {
  return { vmName, instance, stateDirectory };
}

/** The same VM with more of everything, and without its port forward. */
function grown(request: CreateRequest): CreateRequest {
  const disks = request.boot.disks.map((disk) => ({ ...disk, numQueues: 3 }));
  const size = { vcpus: 3, memoryMiB: 512, statefulDiskMiB: 96, disks, portForwards: [] };
  return { ...request, boot: { ...request.boot, ...size } };
}

/** Links and rules of this namespace, without what counts up. */
function hostNetwork(): string {
  const links = rules("ip", "-br", "link").replaceAll(/\s+/g, " ");
  return `${links}\n${rules("nft", "list", "ruleset")}`;
}

/** An operation in a process of its own. */
class Operation {
  readonly #child: ChildProcess;
  #text = "";
  #began: () => void = () => undefined;
  readonly hasBegun = new Promise<void>((resolve) => (this.#began = resolve));
  readonly ended: Promise<{ readonly code?: string }>;

  constructor(order: BackEndOrder) {
    const program = join(__dirname, "back-end-process.ts");
    this.#child = spawn(process.execPath, ["--import", "tsx", program, JSON.stringify(order)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.#text += text;
      if (this.#text.includes("begin\n")) this.#began();
    });
    this.ended = once(this.#child, "close").then(() => {
      this.#began();
      const end = /^end (.*)$/m.exec(this.#text)?.[1];
      return end === undefined ? { code: "killed" } : (JSON.parse(end) as { code?: string });
    });
  }

  get isOver(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.ended;
  }
}
