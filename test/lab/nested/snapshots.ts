/**
 * `npm run lab:nested -- --story snapshots`: a snapshot of a real guest on Cloud Hypervisor, and the guest restored from it, inside the
 * nested machine and by the provider's own functions.
 */

import { deepEqual, equal, match, ok, rejects } from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFile, cp, readdir, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { MicroVmError } from "../../../provider/errors.js";
import type { Values } from "../../../provider/plan/fields.js";
import { defaultStateDirectory } from "../../../provider/host/state-directory.js";
import * as snapshots from "../../../provider/snapshot.js";
import { Resource } from "./resource.js";
import { ask, hostState, makeBridge, ROOT, serveRoot, until } from "./site.js";

const HOST = "10.30.0.1";
const STATE = defaultStateDirectory();

/** Added to what the guest does: it remembers a word in its memory, on its disk and on its root. */
const GUEST_EXTRAS = `
cat > /run/www/cgi-bin/remember <<'END'
#!/bin/sh
echo "$QUERY_STRING" > /run/word
echo "$QUERY_STRING" > /data/word
echo "$QUERY_STRING" > /var/word
sync
printf 'Content-Type: text/plain\\r\\n\\r\\nremembered'
END
cat > /run/www/cgi-bin/recall <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "memory $(cat /run/word), disk $(cat /data/word), root $(cat /var/word), boots $(grep -c . /var/boots.txt)"
END
chmod 755 /run/www/cgi-bin/*
`;

/** A state directory's own marks stay: its host id, what it has read of kernels, and leases that were given back. */
const KEPT = /\/host-id$|\/cache\/|\/leases\/\.retired\//;

let failed = 0;

/** A step of the story; what follows a failed one is told nevertheless. */
async function step(name: string, tell: () => Promise<string>): Promise<void> {
  const begun = Date.now();
  try {
    const said = await tell();
    console.log(`ok      ${name}: ${said} (${((Date.now() - begun) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}: ${error instanceof Error ? error.stack : String(error)}`);
  }
}

/** What the engine gives for a snapshot of a VM. */
function inputsOf(vm: Resource, name: string): Values {
  const { vmName, instance } = vmOf(vm);
  const urn = `urn:pulumi:dev::nested::microvm:index:MicroVmSnapshot::${name}`;
  return {
    vmId: `${vmName}/${instance}`,
    stateDirectory: vm.outputs["stateDirectory"],
    owner: { organization: "organization", urn, program: "/lab" },
    __provider: 'exports.handler=()=>require("pulumi-microvm/snapshot")',
  };
}

function vmOf(vm: Resource): { vmName: string; instance: string } {
  const [vmName = "", instance = ""] = (vm.id ?? "").split("/");
  return { vmName, instance };
}

/** What is there of a VM. A hypervisor does not answer while it writes its guest's memory. */
async function stateOf(vm: Resource): Promise<unknown> {
  try {
    await vm.refresh();
    return vm.outputs["state"];
  } catch (error) {
    if (error instanceof MicroVmError && error.code === "vmm-failed") return "busy";
    throw error;
  }
}

/** Takes a snapshot in a process of its own, which is killed as soon as the guest stands still. */
async function killedSnapshot(inputs: Values, isPaused: () => Promise<boolean>): Promise<void> {
  const code = `require("/package/dist/provider/snapshot.js").create(${JSON.stringify(inputs)}).then(console.log, console.error)`;
  const child = spawn(process.execPath, ["-e", code], { stdio: "inherit" });
  const ended = once(child, "exit");
  ok(await until(60, isPaused, (paused) => paused || child.exitCode !== null), "it was never seen paused");
  child.kill("SIGKILL");
  await ended;
}

async function story(): Promise<void> {
  await makeBridge("br0", [`${HOST}/24`]);
  const before = await hostState();
  const server = await serveRoot();
  await appendFile(`${ROOT}/etc/init.d/rcS`, GUEST_EXTRAS);
  const vm = new Resource("saved");
  let program: Values = {
    backend: { type: "cloud-hypervisor" },
    kernel: "/lab/kernel",
    useNfsRoot: true,
    nfsServer: HOST,
    nfsPort: server.nfsPort,
    nfsMountPort: server.mountPort,
    nfsPath: ROOT,
    memoryMiB: 256,
    statefulDiskMiB: 64,
    network: { bridge: "br0", subnet: `${HOST}/24` },
    readiness: { timeoutSeconds: 240 },
    shutdownTimeoutSeconds: 30,
  };
  const guest = () => String(vm.outputs["guestIp"]);
  const recall = async () => (await ask(guest(), "/cgi-bin/recall"))?.trim();
  let id = "";
  let outs: Values = {};

  await step("create boots a guest that remembers a word", async () => {
    await vm.up(program);
    ok(await until(60, () => ask(guest(), "/cgi-bin/remember?before"), Boolean));
    const said = await recall();
    match(said ?? "", /memory before, disk before, root before, boots 1/);
    return String(said);
  });
  await step("a snapshot that is killed leaves none, and a guest that the next up resumes", async () => {
    await killedSnapshot(inputsOf(vm, "killed"), async () => (await stateOf(vm)) !== "running");
    deepEqual(await snapshotsHere(), []);
    // It writes the guest's memory to its end.
    equal(
      await until(
        120,
        () => stateOf(vm),
        (state) => state !== "busy",
      ),
      "paused",
    );
    const { action } = await vm.up(program);
    equal(action, "update");
    const said = await until(30, recall, Boolean);
    match(said ?? "", /memory before/);
    return `paused, no snapshot; after an ${action}: ${said}`;
  });
  await step("a snapshot is taken, and the guest runs on", async () => {
    const inputs = (await snapshots.check({}, inputsOf(vm, "kept"))).inputs;
    ({ id, outs } = await snapshots.create(inputs));
    deepEqual(await snapshotsHere(), [id]);
    ok(await until(30, () => ask(guest(), "/cgi-bin/remember?after"), Boolean));
    match((await recall()) ?? "", /memory after, disk after, root after/);
    await vm.refresh();
    deepEqual([vm.outputs["state"], vm.outputs["rootEvidence"]], ["running", "proved"]);
    deepEqual(await snapshots.diff(id, outs, inputs), {
      changes: false,
      replaces: [],
      deleteBeforeReplace: false,
    });
    equal((await snapshots.read(id, outs)).id, id);
    return `${id}: ${(await readdir(`${STATE}/.snapshots/${id}/vmm`)).join(", ")}`;
  });
  await step("a restore onto the writable root is refused unless it is accepted", async () => {
    await rejects(vm.up({ ...program, snapshotId: id }), /acceptStaleRoot: expected true/);
    return "refused";
  });
  await step("a restore that would change the guest is refused", async () => {
    const changed = { ...program, snapshotId: id, acceptStaleRoot: true, memoryMiB: 384 };
    await rejects(vm.up(changed), /memoryMiB: expected 256/);
    return "refused";
  });
  await step("the guest is restored with its memory and its disk", async () => {
    program = { ...program, snapshotId: id, acceptStaleRoot: true };
    const { action, replaces } = await vm.up(program);
    deepEqual([action, replaces], ["replace", ["snapshotId"]]);
    deepEqual([vm.outputs["state"], vm.outputs["rootEvidence"]], ["running", "restored"]);
    ok(await until(60, () => ask(guest()), Boolean), "the guest does not answer");
    // By its root it may have to connect anew first.
    const said = await until(240, recall, Boolean);
    match(said ?? "", /memory before, disk before, root \w+, boots 1/);
    return String(said);
  });
  await step("the restored guest still writes to its root", async () => {
    ok(await until(30, () => ask(guest(), "/cgi-bin/remember?restored"), Boolean));
    equal((await readFile(`${ROOT}/var/word`, "utf8")).trim(), "restored");
    deepEqual(await vm.up(program), { action: "same", replaces: [] });
    return "restored";
  });
  await step("stopped and started it boots, and proves its root", async () => {
    equal((await vm.up({ ...program, powerState: "stopped" })).action, "update");
    equal((await vm.up(program)).action, "update");
    equal(vm.outputs["rootEvidence"], "proved");
    const said = await until(60, recall, Boolean);
    match(said ?? "", /disk restored, root restored, boots 2/);
    return String(said);
  });
  await step("the deletes leave nothing", async () => {
    await keepLogs(vm);
    await vm.destroy();
    await snapshots.delete(id, outs);
    await snapshots.delete(id, outs);
    deepEqual(await snapshots.read(id, outs), {});
    await server.stop();
    const after = await hostState();
    const left = after.filter((thing) => !before.includes(thing) && !KEPT.test(thing));
    deepEqual(left, []);
    return "nothing is left";
  });
}

async function snapshotsHere(): Promise<string[]> {
  return await readdir(`${STATE}/.snapshots`).catch(() => []);
}

const isText = (path: string): boolean => !/\/kernel$|\.img$|\.sock$/.test(path);

/** Puts what a VM leaves in its folder, but for images, where this host's person finds it. */
async function keepLogs({ name, outputs }: Resource): Promise<void> {
  const { consoleLog } = outputs;
  if (typeof consoleLog !== "string") return;
  await cp(dirname(consoleLog), `/out/${name}`, { recursive: true, filter: isText });
}

story().then(
  () => (process.exitCode = failed === 0 ? 0 : 1),
  (error: unknown) => {
    console.error(error);
    process.exitCode = 1;
  },
);
