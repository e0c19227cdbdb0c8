/**
 * What `npm run lab:nested` shows, inside the nested machine: the life of VMs on the back end cloud-hypervisor, with real guests, by the
 * provider's own functions, and that nothing of them is left on the host.
 */

import { deepEqual, equal, match, ok } from "node:assert/strict";
import { cp, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import type { Values } from "../../../provider/plan/fields.js";
import type { NfsServer } from "../nfs.js";
import { Resource } from "./resource.js";
import {
  ask,
  BEYOND,
  hostState,
  left,
  makeBeyond,
  makeBridge,
  reachList,
  ROOT,
  serveHost,
  serveRoot,
  until,
} from "./site.js";

const HOST_PORT = 8080;
const ONE = "10.30.0.1";
const OTHER = "10.30.0.254";

let failed = 0;

/** A step of the story, and whether it went well. */
async function step(name: string, tell: () => Promise<string>): Promise<boolean> {
  const begun = Date.now();
  try {
    const said = await tell();
    console.log(`ok      ${name}: ${said} (${((Date.now() - begun) / 1000).toFixed(1)} s)`);
    return true;
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}: ${error instanceof Error ? error.stack : String(error)}`);
    return false;
  }
}

async function story(): Promise<void> {
  // First: ganesha takes no address while this machine has but its loopback.
  await makeBeyond();
  const server = await serveRoot();
  await serveHost(HOST_PORT);
  try {
    await life(server);
    await reach(server);
  } finally {
    await server.stop();
  }
}

function programOf(server: NfsServer): Values {
  return {
    backend: { type: "cloud-hypervisor" },
    kernel: "/lab/kernel",
    useNfsRoot: true,
    nfsServer: ONE,
    nfsPort: server.nfsPort,
    nfsMountPort: server.mountPort,
    nfsPath: ROOT,
    memoryMiB: 256,
    readiness: { timeoutSeconds: 240 },
    shutdownTimeoutSeconds: 30,
  };
}

/** One VM on a bridge of the person's. */
async function life(server: NfsServer): Promise<void> {
  await makeBridge("br0", [`${ONE}/24`, `${OTHER}/24`]);
  const before = await hostState();
  const vm = new Resource("life");
  let program: Values = {
    ...programOf(server),
    network: { bridge: "br0", subnet: `${ONE}/24` },
    maxVcpus: 2,
    maxMemoryMiB: 512,
    statefulDiskMiB: 64,
  };
  const change = async (changes: Values) => await vm.up((program = { ...program, ...changes }));
  const guest = () => String(vm.outputs["guestIp"]);

  const isCreated = await step("create boots a guest that proves its root", async () => {
    equal((await vm.up(program)).action, "create");
    const { state, rootEvidence, accelerator } = vm.outputs;
    deepEqual(
      { state, rootEvidence, accelerator },
      { state: "running", rootEvidence: "proved", accelerator: "kvm" },
    );
    return await words(vm);
  });
  if (!isCreated) return;
  await step("the guest answers on its address", async () => {
    const said = await until(60, () => ask(guest()), Boolean);
    match(said ?? "", new RegExp(`my root is ${ONE}:${ROOT} \\(nfs\\)`));
    return `${guest()} says "${said?.split("\n")[1]}"`;
  });
  await step("the same program again changes nothing", async () => {
    deepEqual(await vm.up(program), { action: "same", replaces: [] });
    await vm.refresh();
    equal(vm.outputs["state"], "running");
    return "same; read says running";
  });
  await step("vCPUs, memory and disk grow in place", async () => {
    const { pid } = vm.outputs;
    const { action } = await change({ vcpus: 2, memoryMiB: 384, statefulDiskMiB: 128 });
    equal(action, "update");
    equal(vm.outputs["pid"], pid);
    const grown = /cpus 2\nmemory 3\d\d\ndisk 128/;
    const said = await until(
      60,
      () => ask(guest(), "/cgi-bin/now"),
      (text = "") => grown.test(text),
    );
    match(said ?? "", grown);
    return `the guest has ${said?.trim().replaceAll("\n", ", ")}`;
  });
  await step("a pause holds the guest, and it goes on as the same process", async () => {
    const { pid } = vm.outputs;
    equal((await change({ powerState: "paused" })).action, "update");
    equal(vm.outputs["state"], "paused");
    equal(await ask(guest()), undefined);
    equal((await change({ powerState: "running" })).action, "update");
    ok(await until(30, () => ask(guest()), Boolean));
    equal(vm.outputs["pid"], pid);
    return "paused: silent; resumed: answers";
  });
  await step("a port is forwarded, and no more", async () => {
    const portForwards = [{ hostPort: 8081, guestPort: 80, hostAddress: "0.0.0.0" }];
    equal((await change({ portForwards })).action, "update");
    const said = await until(10, () => ask("192.0.2.1:8081"), Boolean);
    match(said ?? "", /I am /);
    equal((await change({ portForwards: [] })).action, "update");
    equal(await ask("192.0.2.1:8081"), undefined);
    return "192.0.2.1:8081 answered";
  });
  await step("another nfsServer is a replace", async () => {
    const { pid } = vm.outputs;
    const { action, replaces } = await change({ nfsServer: OTHER });
    equal(action, "replace");
    ok(replaces.includes("nfsServer"), replaces.join());
    ok(vm.outputs["pid"] !== pid);
    const said = await until(60, () => ask(guest()), Boolean);
    match(said ?? "", new RegExp(`my root is ${OTHER}:${ROOT} \\(nfs\\)`));
    return `replaced by ${replaces.join(", ")}; "${said?.split("\n")[1]}"`;
  });
  await step("it stops in an orderly way, and starts again", async () => {
    equal((await change({ powerState: "stopped" })).action, "update");
    equal(vm.outputs["state"], "stopped");
    match(await readFile(`${ROOT}/var/power-offs.txt`, "utf8"), /off/);
    equal((await change({ powerState: "running" })).action, "update");
    equal(vm.outputs["rootEvidence"], "proved");
    return "stopped; running again, proved";
  });
  await step("a VMM that was killed shows as stopped, and the next up starts it again", async () => {
    process.kill(Number(vm.outputs["pid"]), "SIGKILL");
    const seen = await until(
      20,
      async () => (await vm.refresh(), vm.outputs["state"]),
      (state) => state === "stopped",
    );
    equal(seen, "stopped");
    equal((await vm.up(program)).action, "update");
    deepEqual([vm.outputs["state"], vm.outputs["rootEvidence"]], ["running", "proved"]);
    return `running again; the root has seen ${(await readFile(`${ROOT}/var/boots.txt`, "utf8")).trimEnd().split("\n").length} boots`;
  });
  await step("delete leaves nothing", async () => {
    await keepLogs(vm);
    await vm.destroy();
    deepEqual(await left(before), []);
    return "no process, tap, rule, lease or file; the person's bridge stays";
  });
}

/** Two VMs on the network that the provider makes: one reaches its root alone. */
async function reach(server: NfsServer): Promise<void> {
  const before = await hostState();
  const open = new Resource("open");
  const closed = new Resource("closed");
  const program = { ...programOf(server), nfsServer: "127.0.0.1", preflight: "warn" };
  const host = "10.20.1.1";
  await step("the network is made for a guest that reaches what is beyond", async () => {
    await reachList([`${BEYOND} 80`, `${host} ${HOST_PORT}`, `${host} ${server.nfsPort}`]);
    equal((await open.up(program)).action, "create");
    const tried = await triedBy(open);
    deepEqual(tried, {
      [`${BEYOND} 80`]: "yes",
      [`${host} ${HOST_PORT}`]: "yes",
      [`${host} ${server.nfsPort}`]: "yes",
    });
    return JSON.stringify(tried);
  });
  await step('"nfs-only" reaches its root alone', async () => {
    const neighbour = String(open.outputs["guestIp"]);
    const shut = [`${BEYOND} 80`, `${host} ${HOST_PORT}`, `192.0.2.1 ${HOST_PORT}`, `${neighbour} 80`];
    await reachList([...shut, `${host} ${server.nfsPort}`]);
    equal((await closed.up({ ...program, guestAccess: "nfs-only" })).action, "create");
    const tried = await triedBy(closed);
    deepEqual(tried, {
      ...Object.fromEntries(shut.map((target) => [target, "no"])),
      [`${host} ${server.nfsPort}`]: "yes",
    });
    return JSON.stringify(tried);
  });
  await step("the deletes leave neither bridge nor table", async () => {
    await keepLogs(open);
    await keepLogs(closed);
    await open.destroy();
    await closed.destroy();
    deepEqual(await left(before), []);
    return "nothing is left";
  });
}

async function triedBy(vm: Resource): Promise<Values> {
  const said = await until(
    120,
    () => consoleOf(vm),
    (text) => text.includes("guest: tried all"),
  );
  return Object.fromEntries(
    [...said.matchAll(/guest: reaches (\S+ \d+): (\w+)/g)].map(([, target, answer]) => [target, answer]),
  );
}

async function consoleOf({ outputs }: Resource): Promise<string> {
  return (await readFile(String(outputs["consoleLog"]), "utf8")).replaceAll("\r", "");
}

async function words(vm: Resource): Promise<string> {
  return (
    (await consoleOf(vm))
      .split("\n")
      .find((line) => line.includes("VFS: Mounted root"))
      ?.trim() ?? "proved"
  );
}

const isText = (path: string): boolean => !/\/kernel$|\.img$|\.sock$/.test(path);

/** Puts what a VM leaves in its folder, but for images and sockets, where this host's person finds it. */
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
