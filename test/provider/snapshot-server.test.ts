import { afterEach, describe, expect, it } from "vitest";

import { check, create, delete as remove, diff, read } from "../../provider/snapshot.js";
import { owner, useBed } from "./bed.js";
import { StandIn } from "./backends/arrakis/stand-in.js";

const bed = useBed();
let server: StandIn | undefined;
afterEach(async () => await server?.close());

const VM = "web/0123456789abcdef";

/** What the SDK gives for a snapshot of a VM that a server runs. */
async function scene() {
  server = await StandIn.open();
  server.vms.set("web", "RUNNING");
  const urn = "urn:pulumi:dev::shop::microvm:index:MicroVmSnapshot::kept";
  const backend = { type: "arrakis", url: server.url };
  const news = { vmId: VM, backend, owner: { ...owner, urn }, __provider: "ours" };
  return { standIn: server, news, backend };
}

describe("a snapshot on a server", () => {
  it("is taken by the server, under a name of ours, and stays until a trigger", async () => {
    const { standIn, news } = await scene();
    const { inputs, failures } = await check({}, news);
    expect(failures).toEqual([]);
    const { id, outs } = await create(inputs);
    expect(id).toMatch(/^web-[0-9a-f]{16}$/);
    expect(standIn.asked.at(-1)).toMatchObject({ path: "/v1/vms/web/snapshots", body: { snapshotId: id } });
    expect(outs).toMatchObject({ snapshotId: id, vmName: "web", vmId: VM, observed: "there" });
    const again = await check(inputs, news);
    expect(await diff(id, outs, again.inputs)).toMatchObject({ changes: false });
    const other = await check(inputs, { ...news, trigger: "2" });
    expect(await diff(id, outs, other.inputs)).toMatchObject({ replaces: ["trigger"] });
    expect(await read(id, outs)).toEqual({ id, props: outs });
  });

  it("stays on the server when it leaves the program, which is said", async () => {
    const { standIn, news } = await scene();
    const { inputs } = await check({}, news);
    const { id, outs } = await create(inputs);
    const before = standIn.done.length;
    await remove(id, outs);
    expect(standIn.done).toHaveLength(before);
    expect(bed.lines.join("\n")).toContain(`${id}: the server at ${standIn.url} keeps the snapshot`);
  });

  it("is refused of a VM that is not there", async () => {
    const { standIn, news } = await scene();
    standIn.vms.clear();
    const { inputs } = await check({}, news);
    await expect(create(inputs)).rejects.toThrow(/vmId: the VM web is not on the server/);
  });

  it("takes another token of the same server as it is", async () => {
    const { news, backend } = await scene();
    const { inputs: olds } = await check({}, news);
    const { inputs } = await check(olds, { ...news, backend: { ...backend, token: "n3w" } });
    expect(inputs).toMatchObject({ backend: { token: "n3w" } });
  });
});
