import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { CloudHypervisorApi } from "../../../../provider/backends/cloud-hypervisor/api.js";
import { cloudHypervisor } from "../../../../provider/backends/cloud-hypervisor/cloud-hypervisor.js";
import { vmConfig } from "../../../../provider/backends/cloud-hypervisor/config.js";
import type { Launch } from "../../../../provider/backends/local/vmm.js";
import type { Exchange } from "../../../lab/record-cloud-hypervisor.js";
import { type Answer, StandInVmm } from "../../../lab/stand-in-vmm.js";
import { sampleLaunch } from "./sample-launch.js";

/** What the real one answered, in this order (test/lab/record-cloud-hypervisor.ts). */
const recorded = JSON.parse(readFileSync(join(__dirname, "recorded.json"), "utf8")) as Exchange[];
const ping = recorded.filter(({ path }) => path.endsWith("/vmm.ping"));

let folder: string;
let socket: string;
let vmm: StandInVmm | undefined;
let api: CloudHypervisorApi | undefined;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "microvm-recorded-"));
  socket = join(folder, "api.sock");
});
afterEach(async () => {
  api?.close();
  vmm?.close();
  [api, vmm] = [undefined, undefined];
  await rm(folder, { recursive: true, force: true });
});

async function standIn(answers: readonly Answer[]): Promise<StandInVmm> {
  vmm = await StandInVmm.listen(socket, answers);
  return vmm;
}

const put = (name: string, status: number, text = ""): Answer => ({
  method: "PUT",
  path: `/api/v1/${name}`,
  status,
  text,
});
const launch: Launch = sampleLaunch();
const lines: string[] = [];
const work = { signal: new AbortController().signal, notice: (line: string) => lines.push(line) };

describe("recorded answers of the real Cloud Hypervisor", () => {
  it("are all understood, from the first question to the end", async () => {
    await standIn(recorded);
    api = await CloudHypervisorApi.connect(socket);
    expect(await api.info()).toBeUndefined();
    await expect(api.boot()).rejects.toThrow(/VM config is missing \(status 404\)/);
    await expect(api.create(vmConfig(launch, true))).rejects.toThrow(/Failed to deserialize JSON/);
    await api.create(vmConfig(launch, true));
    expect(await api.info()).toMatchObject({
      state: "Created",
      config: { cpus: { boot_vcpus: 1, max_vcpus: 2 } },
    });
    await api.boot();
    expect((await api.info())?.state).toBe("Running");
    await expect(api.resume()).rejects.toThrow(/InvalidStateTransition\(Running, Running\)/);
    await api.pause();
    expect((await api.info())?.state).toBe("Paused");
    await api.resume();
    await api.resize({ desired_vcpus: 2, desired_ram: 2 ** 28 });
    await expect(api.resize({ desired_vcpus: 9 })).rejects.toThrow(/Requested vCPUs exceed maximum/);
    await api.resizeDisk("disk0", 2 ** 21);
    await expect(api.resizeDisk("disk7", 2 ** 21)).rejects.toThrow(/Failed to find device.*status 404/);
    await api.pressPowerButton();
    await api.delete();
    await api.shutdownVmm();
  });

  it("were given for what we send", () => {
    const sent = recorded.find(({ path, status }) => path.endsWith("vm.create") && status === 204);
    expect(Object.keys(sent?.body as object).toSorted()).toEqual(
      [...Object.keys(vmConfig(launch, true)), "disks"].toSorted(),
    );
  });
});

describe("a connection to Cloud Hypervisor", () => {
  it("is refused where the VMM is too old", async () => {
    await standIn([{ method: "GET", path: "/api/v1/vmm.ping", status: 200, text: '{"version":"49.0.0"}' }]);
    await expect(cloudHypervisor.connect(socket)).rejects.toMatchObject({ code: "host-unusable" });
  });

  it("boots without Landlock where the kernel has none, and says so", async () => {
    const chain =
      '["Error from API","The VM could not be created","Failed to apply landlock config during vm_create"]';
    const { requests } = await standIn([
      ...ping,
      put("vm.create", 500, chain),
      put("vm.delete", 204),
      put("vm.create", 204),
      put("vm.boot", 204),
    ]);
    const control = await cloudHypervisor.connect(socket);
    await control.prepare?.(launch, work);
    await control.boot(launch, work);
    control.close();
    expect(requests.map(({ what }) => what.split("/").at(-1))).toEqual([
      "vmm.ping",
      "vm.create",
      "vm.delete",
      "vm.create",
      "vm.boot",
    ]);
    expect(requests[1]?.body).toMatchObject({ landlock_enable: true });
    expect(requests[3]?.body).toMatchObject({ landlock_enable: false });
    expect(lines.at(-1)).toMatch(/runs without Landlock/);
  });

  it("tells of any other refusal of the configuration, once", async () => {
    const { requests } = await standIn([
      ...ping,
      put("vm.create", 400, '["Error from API","too many queues"]'),
    ]);
    const control = await cloudHypervisor.connect(socket);
    await expect(control.prepare?.(launch, work)).rejects.toThrow(/too many queues/);
    control.close();
    expect(requests).toHaveLength(2);
  });

  it.each([
    [undefined, "unbooted"],
    ["Created", "unbooted"],
    ["Running", "running"],
    ["Paused", "paused"],
    ["BreakPoint", "paused"],
    ["Shutdown", "ended"],
  ])("reads the state %s as %s", async (state, expected) => {
    const text = JSON.stringify({ state, config: {} });
    const info = { method: "GET", path: "/api/v1/vm.info" } as const;
    await standIn([...ping, { ...info, status: state === undefined ? 404 : 200, text }]);
    const control = await cloudHypervisor.connect(socket);
    expect(await control.guestState()).toBe(expected);
    control.close();
  });
});
