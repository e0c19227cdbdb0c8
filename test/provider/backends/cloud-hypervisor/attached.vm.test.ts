import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { CloudHypervisorApi } from "../../../../provider/backends/cloud-hypervisor/api.js";
import { cloudHypervisor } from "../../../../provider/backends/cloud-hypervisor/cloud-hypervisor.js";
import { localBackend } from "../../../../provider/backends/local/local.js";
import { vmPaths } from "../../../../provider/host/paths.js";
import { attachedFindings } from "../../../../provider/preflight/attached.js";
import { isInNamespace, runInNamespace, whyNoNamespace } from "../../../lab/namespace.js";
import { cloudHypervisorBinary } from "../../../lab/programs.js";
import { testLocalBackend } from "../contract.js";
import { LocalLab } from "../local-lab.js";
import { Service } from "./their-vmm.js";

const binary = cloudHypervisorBinary();
const reason =
  binary === undefined
    ? "cloud-hypervisor is not on PATH, and CLOUD_HYPERVISOR is not set"
    : whyNoNamespace();
const title = "cloud-hypervisor in a VMM of somebody else's";
const backend = localBackend(cloudHypervisor);

if (reason !== undefined) {
  describe(title, () => it.skip(`skipped: ${reason}`, () => undefined));
} else if (isInNamespace()) {
  const service = new Service(binary ?? "");
  beforeAll(async () => await service.open());
  afterAll(async () => await service.close());
  const scripted = { type: "cloud-hypervisor", apiSocket: service.apiSocket } as const;
  testLocalBackend(title, { backend, scripted, theirs: service });
  testAttached(service);
} else {
  it(`${title}: in a network namespace of its own`, () => {
    expect(runInNamespace(__filename)).toBe(0);
  });
}

function testAttached(service: Service): void {
  describe(`a VM of ${title}`, () => {
    const { apiSocket, network } = service;
    let lab: LocalLab;
    beforeAll(async () => {
      lab = await LocalLab.openScripted(backend, { type: "cloud-hypervisor", apiSocket }, network);
    });
    afterAll(async () => await lab.close());

    it("uses the tap as it is, changes nothing of the network, and leaves the VMM running without a VM", async () => {
      await service.untilUp();
      const { pid } = service;
      const before = hostNetwork();
      const { vm, reference } = await lab.create({ memoryMiB: 256, maxMemoryMiB: 1024, maxVcpus: 4 });
      expect(vm).toMatchObject({ state: "running", rootEvidence: "proved", accelerator: "kvm" });
      expect(vm).not.toHaveProperty("pid");
      expect(hostNetwork()).toBe(before);
      await lab.remove(reference, 0);
      expect(hostNetwork()).toBe(before);
      expect(lab.leftoversOf(reference)).toEqual([]);
      expect(service.pid).toBe(pid);
      expect(await holderOf(apiSocket)).toBe("nobody");
    });

    it("grows in place", async () => {
      const { vm, reference, request } = await lab.create({
        memoryMiB: 256,
        maxMemoryMiB: 1024,
        maxVcpus: 4,
        statefulDiskMiB: 80,
      });
      const boot = { ...request.boot, vcpus: 3, memoryMiB: 512, statefulDiskMiB: 96 };
      const after = await lab.update(reference, { ...request, boot });
      expect(after).toEqual({ ...vm, requested: { vcpus: 3, memoryMiB: 512 } });
      await lab.remove(reference, 0);
    });

    it("is stopped when its VMM has ended or was restarted by its owner, and starts again in it", async () => {
      const { vm, reference, request } = await lab.create();
      await service.stop();
      expect((await lab.backend.observe(reference)).state).toBe("stopped");
      await expect(lab.update(reference, request)).rejects.toMatchObject({
        code: "host-unusable",
        input: "backend.apiSocket",
      });
      service.start();
      await service.untilUp();
      expect((await lab.backend.observe(reference)).state).toBe("stopped");
      expect(await lab.update(reference, request)).toEqual(vm);
      await lab.remove(reference, 0);
    });

    it("is removed when its VMM is gone", async () => {
      const { reference } = await lab.create();
      await service.stop();
      await lab.remove(reference, 0);
      expect(lab.leftoversOf(reference)).toEqual([]);
      service.start();
      await service.untilUp();
    });

    it("is not guessed at, and not removed, while its VMM does not answer", async () => {
      const { vm, reference } = await lab.create();
      process.kill(service.pid ?? 0, "SIGSTOP");
      try {
        await expect(lab.backend.observe(reference)).rejects.toThrow(/which does not answer/);
      } finally {
        process.kill(service.pid ?? 0, "SIGCONT");
      }
      expect(await lab.backend.observe(reference)).toEqual(vm);
      await lab.remove(reference, 0);
    });

    it("does not touch the VM of another's, nor one of its own kind", async () => {
      const first = await lab.create();
      const request = await lab.request();
      const link = { ...request.boot.link, ...service.makeTap("theirs1", "10.78.0.1/24") };
      const error = await lab.failureOf({ ...request, boot: { ...request.boot, link } });
      expect(error).toMatchObject({ code: "host-unusable", input: "backend.apiSocket" });
      expect(error.message).toContain(`the VM of instance ${first.request.instance}`);
      expect(await attachedFindings(apiSocket, request.vmName)).toMatchObject([{ certain: false }]);
      expect(await attachedFindings(apiSocket, first.request.vmName)).toEqual([]);
      expect((await lab.backend.observe(first.reference)).state).toBe("running");
      await lab.remove(first.reference, 0);
    });

    it("is ended when its create was killed, and the next create makes it", async () => {
      const { vm, reference, request } = await lab.create();
      const { record } = vmPaths(lab.stateDirectory, request.vmName);
      await writeFile(
        record,
        (await readFile(record, "utf8")).replace(/"startTime": "\d+"/, '"startTime": "1"'),
      );
      const next = { ...request, instance: "fedcba9876543210" };
      expect(await lab.backend.create(next)).toEqual(vm);
      expect(await holderOf(apiSocket)).toBe(next.instance);
      await lab.remove({ ...reference, instance: next.instance }, 0);
      rmSync(`${lab.stateDirectory}/.lost`, { recursive: true });
    });

    it("is refused a snapshot", async () => {
      const { reference, request } = await lab.create();
      const { owner, signal, notice } = request;
      const id = `${request.vmName}-0123456789abcdef`;
      const taken = lab.backend.takeSnapshot({ id, reference, owner, signal, notice });
      await expect(taken).rejects.toMatchObject({ code: "not-supported", input: "vmId" });
      await lab.remove(reference, 0);
    });

    it("fails the preview where nobody listens", async () => {
      const [finding] = await attachedFindings("/nowhere/api.sock", "vm");
      expect(finding).toMatchObject({ certain: true, input: "backend.apiSocket" });
      expect(finding?.text).toMatch(/expected a Cloud Hypervisor that listens at .*there is no such socket/);
    });
  });
}

/** Links, addresses and rules, but for whether a tap is open. */
function hostNetwork(): string {
  return ["ip -br link", "ip -br -4 address", "nft list ruleset"]
    .map((line) => execFileSync("/bin/sh", ["-c", line], { encoding: "utf8" }))
    .join("")
    .replaceAll(/\b(?:UP|DOWN|UNKNOWN)\b|<[A-Z,_-]*>/g, "")
    .replaceAll(/ +/g, " ");
}

async function holderOf(socket: string): Promise<string> {
  const api = await CloudHypervisorApi.connect(socket);
  try {
    const info = await api.info();
    const path = info?.config.vsock?.socket ?? "";
    return info === undefined ? "nobody" : (/([0-9a-f]{16})\.vs/.exec(path)?.[1] ?? "somebody");
  } finally {
    api.close();
  }
}
