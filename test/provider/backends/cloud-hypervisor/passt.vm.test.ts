import { execFileSync } from "node:child_process";
import { createServer } from "node:net";
import { once } from "node:events";
import { readFileSync } from "node:fs";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import type { CreateRequest } from "../../../../provider/backends/backend.js";
import {
  cloudHypervisor,
  programOf,
} from "../../../../provider/backends/cloud-hypervisor/cloud-hypervisor.js";
import { localBackend } from "../../../../provider/backends/local/local.js";
import { passtProgram, passtsOf } from "../../../../provider/host/network/passt.js";
import { isAlive } from "../../../../provider/host/process.js";
import { isInNamespace, runInNamespace, whyNoNamespace } from "../../../lab/namespace.js";
import { freePort } from "../../../lab/nfs.js";
import { cloudHypervisorBinary, passtBinary } from "../../../lab/programs.js";
import { LocalLab, untilPhase } from "../local-lab.js";

const binary = cloudHypervisorBinary();
const title = "cloud-hypervisor on a user network by passt";

function whyNot(): string | undefined {
  if (binary === undefined) return "cloud-hypervisor is not on PATH, and CLOUD_HYPERVISOR is not set";
  const passt = passtBinary();
  if (passt === undefined) return "passt is not on PATH, and PASST is not set";
  if (
    !execFileSync("/bin/sh", ["-c", `'${passt}' --help 2>&1 || true`], { encoding: "utf8" }).includes(
      "--vhost-user",
    )
  )
    return `${passt} has no --vhost-user`;
  return whyNoNamespace();
}

const reason = whyNot();
if (reason !== undefined) {
  describe(title, () => it.skip(`skipped: ${reason}`, () => undefined));
} else if (isInNamespace()) {
  testPasst();
} else {
  it(`${title}: in a network namespace of its own`, () => {
    expect(runInNamespace(__filename)).toBe(0);
  });
}

function testPasst(): void {
  const backend = localBackend({ ...cloudHypervisor, find: () => Promise.resolve(programOf(binary ?? "")) });
  const console = "guest: ready";
  describe(title, () => {
    let lab: LocalLab;
    let before: string;
    beforeAll(async () => {
      lab = await LocalLab.openScripted(backend, { type: "cloud-hypervisor" }, { passt: true });
      before = hostNetwork();
    });
    afterAll(async () => await lab.close());

    it("gives the VM a passt of its own, without interfaces and rules, which ends and starts with its VMM", async () => {
      const forward = {
        hostPort: await freePort(),
        guestPort: 80,
        protocol: "tcp",
        hostAddress: "127.0.0.1",
      } as const;
      const portForwards = [forward];
      const { vm, request, reference } = await lab.create({ console, portForwards });
      expect(vm).toMatchObject({ state: "running", rootEvidence: "proved", guestIp: "10.0.2.15" });
      const [passt, ...more] = passtsOf(request.instance);
      if (passt === undefined) throw new Error("there is no passt");
      expect(more).toEqual([]);
      expect(readFileSync(`/proc/${passt.pid}/status`, "utf8")).toMatch(/^CapEff:\s+0+$/m);
      expect(hostNetwork()).toBe(before);
      expect(execFileSync("ss", ["-ltn"], { encoding: "utf8" })).toContain(`127.0.0.1:${forward.hostPort} `);

      const { settings } = request;
      await lab.update(reference, { ...request, settings: { ...settings, powerState: "stopped" } });
      await expect.poll(() => isAlive(passt)).toBe(false);
      const again = await lab.update(reference, request);
      expect(again).toMatchObject({ state: "running", rootEvidence: "proved" });
      expect(passtsOf(request.instance)).toHaveLength(1);
      await lab.remove(reference, 0);
      expect(lab.leftoversOf(request)).toEqual([]);
      expect(passtsOf(request.instance)).toEqual([]);
    });

    it("is started anew where its passt has ended: the guest is cut off", async () => {
      const { vm, request, reference } = await lab.create({ console });
      process.kill(passtsOf(request.instance)[0]?.pid ?? 0, "SIGKILL");
      await expect.poll(async () => (await backend.observe(reference)).state).toBe("stopped");
      const again = await lab.update(reference, request);
      expect(again).toMatchObject({ state: "running", rootEvidence: "proved" });
      expect(again.pid).not.toBe(vm.pid);
      await lab.remove(reference, 0);
      expect(lab.leftoversOf(request)).toEqual([]);
    });

    it("leaves nothing of a boot that fails, or that is interrupted", async () => {
      const failed = await lab.failureOf(await lab.request({ guest: "exits" }));
      expect(failed.code).toBe("boot-failed");
      const stop = new AbortController();
      const request: CreateRequest = await lab.request({ signal: stop.signal, console: "never said" });
      const failure = lab.failureOf(request);
      await untilPhase(request, ({ phase }) => phase === "spawned" || phase === "started");
      stop.abort();
      expect(await failure).toMatchObject({ code: "interrupted" });
      expect(passtsOf(request.instance)).toEqual([]);
    });

    it("names a port that another program has", async () => {
      const other = createServer().listen(0, "127.0.0.1");
      await once(other, "listening");
      const { port: hostPort } = other.address() as { port: number };
      const portForwards = [{ hostPort, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }] as const;
      expect(await lab.failureOf(await lab.request({ console, portForwards }))).toMatchObject({
        code: "port-taken",
      });
      other.close();
    });

    it("gives two VMs the same address, each in a world of its own", async () => {
      const [one, two] = [await lab.create({ console }), await lab.create({ console })];
      expect(one.vm.guestIp).toBe(two.vm.guestIp);
      await lab.remove(one.reference, 0);
      expect(await backend.observe(two.reference)).toEqual(two.vm);
      const { owner, signal, notice, vmName } = two.request;
      const id = `${vmName}-0123456789abcdef`;
      const taken = backend.takeSnapshot({ id, reference: two.reference, owner, signal, notice });
      await expect(taken).rejects.toMatchObject({ code: "not-supported", input: "vmId" });
      await lab.remove(two.reference, 0);
    });

    it("is refused a passt that has no vhost-user", async () => {
      await expect(passtProgram({ PASST: "/bin/true" })).rejects.toMatchObject({
        code: "host-unusable",
        input: "network.passt",
      });
    });
  });
}

/** Links, addresses and rules. */
function hostNetwork(): string {
  return ["ip -br link", "ip -br -4 address", "nft list ruleset"]
    .map((line) => execFileSync("/bin/sh", ["-c", line], { encoding: "utf8" }))
    .join("");
}
