import { afterEach, describe, expect, it } from "vitest";

import { check, diff } from "../../provider/index.js";
import type { Values } from "../../provider/plan/fields.js";
import { UNKNOWN } from "../../provider/spec/validate.js";
import { newsOf, useBed } from "./bed.js";
import { StandIn, type StandInOptions } from "./backends/arrakis/stand-in.js";

const OURS = [
  "useNfsRoot",
  "nfsMountPort",
  "nfsOptions",
  "kernelArgs",
  "guestAccess",
  "entryPoint",
  "dryRun",
];

const bed = useBed();
let server: StandIn | undefined;
afterEach(async () => await server?.close());

/** Inputs of a VM on a server, whose paths are nowhere on this host. */
async function scene(options: StandInOptions = {}, changes: Values = {}) {
  server = await StandIn.open(options);
  const backend = { type: "arrakis", url: server.url };
  const nfsServer = "10.20.1.1";
  const kernel = "/srv/not-on-this-host/vmlinux";
  const news = newsOf(bed, { backend, kernel, nfsServer, preflight: undefined, ...changes });
  return { standIn: server, news, backend };
}

const reasons = ({ failures }: Awaited<ReturnType<typeof check>>) => failures.map(({ reason }) => reason);

/** As the last up left it. */
async function made(options: StandInOptions = {}) {
  const found = await scene(options);
  const { inputs: olds } = await check({}, found.news);
  const vmName = String(olds["vmName"]);
  found.standIn.vms.set(vmName, "RUNNING");
  const again = async (changes: Values = {}) => {
    const { inputs: news, failures } = await check(olds, { ...found.news, ...changes });
    expect(failures).toEqual([]);
    return { news, ...(await diff(`${vmName}/0123456789abcdef`, olds, news)) };
  };
  return { ...found, olds, vmName, again };
}

describe("check of a VM on a server", () => {
  it("opens and hashes nothing on this host, and guesses at no command line", async () => {
    const { news } = await scene();
    const { inputs, failures } = await check({}, news);
    expect(failures).toEqual([]);
    for (const absent of [
      "cmdline",
      "disks",
      "kernelSha256",
      "nfsServerAddress",
      "stateDirectory",
      "vcpus",
      "kernelArgs",
    ]) {
      expect(inputs).not.toHaveProperty(absent);
    }
    expect(inputs).toMatchObject({ kernel: news["kernel"], nfsServer: "10.20.1.1", observed: "running" });
    expect(bed.lines.join("\n")).toMatch(/cannot be checked from here: the server at http/);
  });

  it("shows what a server of this project would boot, and its refusals as those of the inputs", async () => {
    const { standIn, news } = await scene({ features: OURS });
    const { inputs } = await check({}, news);
    expect(inputs).toMatchObject({ cmdline: "console=ttyS0 root=/dev/nfs", disks: [] });
    expect(standIn.asked.at(-1)?.body).toMatchObject({ useNfsRoot: true, nfsServer: "10.20.1.1" });
    const error = { message: "nfsPort: nobody listens there [nfs-unreachable]", code: "nfs-unreachable" };
    standIn.dryRun = () => ({ status: 400, body: { error } });
    const refused = await check({}, news);
    expect(refused.failures).toMatchObject([{ property: "nfsPort" }]);
    expect(reasons(refused)[0]).toMatch(/^nfsPort: nobody listens there \(so says .*\[nfs-unreachable\]$/);
  });

  it("leaves a name that is in use to create: the VM may be the one that is replaced", async () => {
    const { standIn, news } = await scene({ features: OURS });
    const error = { message: "vmName: is in use [name-taken]", code: "name-taken" };
    standIn.dryRun = () => ({ status: 409, body: { error } });
    expect(reasons(await check({}, news))).toEqual([]);
  });

  it.each([
    ["nfsMountPort", 20048],
    ["nfsOptions", "hard"],
    ["kernelArgs", ["quiet"]],
    ["guestAccess", "nfs-only"],
    ["entryPoint", "/app"],
  ])(
    "refuses %s where the server does not say that it knows it, and sends it where it does",
    async (name, value) => {
      const { news } = await scene({}, { [name]: value });
      expect(reasons(await check({}, news))).toEqual([
        expect.stringMatching(
          new RegExp(`^${name}: not supported: this server does not say that it knows ${name}`),
        ),
      ]);
      await server?.close();
      const ours = await scene({ features: OURS }, { [name]: value });
      expect(reasons(await check({}, ours.news))).toEqual([]);
      expect(ours.standIn.asked.at(-1)?.body).toMatchObject({ [name]: value });
    },
  );

  it.each(["127.0.0.1", "nas.example.org"])(
    "refuses %s as NFS server of an Arrakis, which hands it to the guest",
    async (nfsServer) => {
      const { news } = await scene({}, { nfsServer });
      expect(reasons(await check({}, news))).toEqual([
        expect.stringContaining("this server hands it to the guest"),
      ]);
      await server?.close();
      const ours = await scene({ features: OURS }, { nfsServer });
      expect(reasons(await check({}, ours.news))).toEqual([]);
    },
  );

  it("fails when the server is not there and a VM is to be made, and warns with preflight warn", async () => {
    const { news } = await scene();
    await server?.close();
    expect(reasons(await check({}, news))).toEqual([
      expect.stringMatching(/^backend\.url: .*\[server-failed\]$/),
    ]);
    expect(reasons(await check({}, { ...news, preflight: "warn" }))).toEqual([]);
    expect(bed.lines.join("\n")).toMatch(/warning: backend\.url: the Arrakis server at .*ECONNREFUSED/);
    server = undefined;
  });

  it("asks the server once for many VMs", async () => {
    const { standIn, news } = await scene();
    for (let vm = 0; vm < 20; vm++) await check({}, { ...news, vmName: `vm${vm}` });
    expect(standIn.done).toEqual(["GET /health"]);
  });

  it("says what it could not ask yet", async () => {
    const { standIn, news, backend } = await scene({ features: OURS }, { nfsPort: UNKNOWN });
    const { inputs } = await check({}, news);
    expect(inputs).toMatchObject({ cmdline: UNKNOWN, nfsPort: UNKNOWN });
    expect(bed.lines.join("\n")).toMatch(/not asked of the server in this preview.*nfsPort not known yet/);
    expect(standIn.done).not.toContain("POST /vms?dryRun=true");
    const later = await check({}, { ...news, nfsPort: 11111, backend: { ...backend, url: UNKNOWN } });
    expect(later.failures).toEqual([]);
  });
});

describe("check and diff of a VM that a server has", () => {
  it("finds nothing to do, and asks for no other command line", async () => {
    const { standIn, again, olds } = await made({ features: OURS });
    standIn.dryRun = ({ vmName }) => ({
      status: 200,
      body: { vmName, cmdline: "another address", disks: [] },
    });
    const { news, changes, replaces } = await again();
    expect({ changes, replaces }).toEqual({ changes: false, replaces: [] });
    expect(news["cmdline"]).toBe(olds["cmdline"]);
  });

  it("shows a VM that is gone, stopped or paused", async () => {
    const { standIn, again, vmName } = await made();
    standIn.vms.set(vmName, "STOPPED");
    expect(await again()).toMatchObject({ changes: true, replaces: [], news: { observed: "stopped" } });
    standIn.vms.delete(vmName);
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(await again()).toMatchObject({ replaces: ["observed"], news: { observed: "gone" } });
  });

  it("says nothing of a VM whose server is not there, and stops no other work", async () => {
    const { again } = await made();
    await server?.close();
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(await again()).toMatchObject({ changes: false, news: { observed: "unknown" } });
    server = undefined;
  });

  it.each([
    ["kernel", "/srv/other/vmlinux"],
    ["nfsPath", "/other"],
    ["entryPoint", "/app"],
  ])("replaces it for another %s", async (name, value) => {
    const { again } = await made({ features: OURS });
    expect(await again({ [name]: value })).toMatchObject({ replaces: [name] });
  });

  it("replaces it for another server, and takes another token as it is", async () => {
    const { again, backend } = await made();
    expect(await again({ backend: { ...backend, token: "n3w" } })).toMatchObject({
      changes: true,
      replaces: [],
    });
    expect(await again({ backend: { ...backend, token: UNKNOWN } })).toMatchObject({ replaces: [] });
    const other = await StandIn.open();
    expect(await again({ backend: { ...backend, url: other.url } })).toMatchObject({ replaces: ["backend"] });
    await other.close();
  });
});
