/**
 * `npm run lab:nested -- --story export`: VMs whose roots the program itself serves at the address of their bridge, inside the nested
 * machine and by the provider's own functions: an NfsExport, and where there is an `agentfs` an AgentFs. The bridge comes with the
 * export, before the VM, and goes with whichever of them goes last.
 */

import { deepEqual, equal, match, ok } from "node:assert/strict";
import { cp, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { interfaceNames } from "../../../provider/host/network/links.js";
import type { Values } from "../../../provider/plan/fields.js";
import { makeGuestRoot } from "../guest.js";
import { answers } from "../nfs.js";
import { isOnPath } from "../programs.js";
import { mustRun, runProcess } from "../run-process.js";
import { Resource } from "./resource.js";
import { ask, hostState, left, makeBeyond, ROOT, serveHost, until } from "./site.js";

const BRIDGE = "microvm0";
const HOST = "10.20.1.1";
/** The machine's address on another link. */
const ELSEWHERE = "192.0.2.1";
const DATABASE = "/srv/fs.db";
const NFS_PROGRAM = 100003;
/** Of a service on all of the machine's addresses, by which the neighbour is seen to get through at all. */
const OPEN_PORT = 8080;

async function story(): Promise<void> {
  await makeBeyond();
  await mustRun("ip", ["-n", "beyond", "route", "add", "10.20.0.0/16", "via", ELSEWHERE]);
  await serveHost(OPEN_PORT);
  equal(await fromBeyond(HOST, OPEN_PORT), false);
  await mustAnswer(async () => await fromBeyond(ELSEWHERE, OPEN_PORT));
  await makeGuestRoot(ROOT);
  await nfsExport();
  if (isOnPath("agentfs")) await agentFs();
  else console.log("skipped an AgentFs: there is no agentfs in $AGENTFS or on PATH");
}

/** A machine that has to wait for its own processor is not always in time. */
async function mustAnswer(look: () => Promise<boolean>): Promise<void> {
  ok(await until(60, look, Boolean));
}

const tell = (what: string): void => console.log(`ok      ${what}`);

/** The VM goes first, as the engine has it. */
async function nfsExport(): Promise<void> {
  const before = await hostState();
  const server = new Resource("files", "NfsExport");
  await serve(server, { directory: ROOT, bind: "bridge" });
  const vm = await boot("on-files", server);
  match(await readFile(`${ROOT}/var/boots.txt`, "utf8"), /^on-files-\S+: Linux .* \(nfs\)\n$/);
  tell("its write is in the folder");

  await vm.destroy();
  ok(interfaceNames().includes(BRIDGE));
  await mustAnswer(async () => await answers(HOST, Number(server.outputs["nfsPort"]), NFS_PROGRAM));
  tell("the VM is deleted; the export goes on at its address");
  await server.destroy();
  deepEqual(await left(before), []);
  tell("the export is deleted: neither bridge, process, rule nor file is left");
}

/** The server goes first, as it may with --target: the guest's root is dead then. */
async function agentFs(): Promise<void> {
  const before = await hostState();
  const boots = await readFile(`${ROOT}/var/boots.txt`, "utf8");
  const server = new Resource("database", "AgentFs");
  await serve(server, { databasePath: DATABASE, baseDirectory: ROOT, bind: "bridge" });
  const { nfsPort } = server.outputs;
  await mustAnswer(async () => await fromBeyond(HOST, OPEN_PORT));
  equal(await fromBeyond(HOST, nfsPort), false);
  tell("a neighbour with a route by this host does not reach it");
  const vm = await boot("on-database", server, { guestAccess: "nfs-only" });
  equal(await readFile(`${ROOT}/var/boots.txt`, "utf8"), boots);
  tell("its write is not in the folder that the database lies over");

  await server.destroy();
  match(await mustRun("agentfs", ["diff", DATABASE]), /^[AM] f \/var\/boots\.txt$/m);
  ok(interfaceNames().includes(BRIDGE));
  tell("the export is deleted; its write is in the database; the bridge stays, for the VM");
  await vm.destroy();
  deepEqual(await left(before), []);
  tell("the VM is deleted: neither bridge, process, rule nor file is left");
}

/** Creates an export: the preview names the address, and it answers there alone. */
async function serve(server: Resource, program: Values): Promise<void> {
  const { nfsServer, nfsPort } = await server.preview(program);
  equal(nfsServer, HOST);
  ok(!interfaceNames().includes(BRIDGE));
  tell(`${server.name}: the preview says ${HOST}:${String(nfsPort)}, and there is no bridge yet`);

  equal((await server.up(program)).action, "create");
  const { state, nfsServer: served } = server.outputs;
  deepEqual([state, served], ["running", HOST]);
  ok(interfaceNames().includes(BRIDGE));
  const port = Number(nfsPort);
  await mustAnswer(async () => await answers(HOST, port, NFS_PROGRAM));
  deepEqual(
    [
      await answers("127.0.0.1", port, NFS_PROGRAM),
      await answers(ELSEWHERE, port, NFS_PROGRAM),
      await fromBeyond(ELSEWHERE, port),
    ],
    [false, false, false],
  );
  tell(`${server.name}: made with its bridge; it answers at ${HOST} alone`);
  deepEqual(await server.up(program), { action: "same", replaces: [] });
}

/** Boots a VM on an export. */
async function boot(name: string, server: Resource, changes: Values = {}): Promise<Resource> {
  const { nfsServer, nfsPort, nfsMountPort, nfsPath } = server.outputs;
  const vm = new Resource(name);
  const program = {
    backend: { type: "cloud-hypervisor" },
    kernel: "/lab/kernel",
    useNfsRoot: true,
    nfsServer,
    nfsPort,
    nfsMountPort,
    nfsPath,
    nfsExport: server.id,
    memoryMiB: 256,
    readiness: { timeoutSeconds: 240 },
    shutdownTimeoutSeconds: 15,
    ...changes,
  };
  equal((await vm.up(program)).action, "create");
  const { state, rootEvidence, accelerator, guestIp } = vm.outputs;
  deepEqual([state, rootEvidence, accelerator], ["running", "proved", "kvm"]);
  tell(`${name}: create boots a guest that proves its root`);

  const said = await until(120, async () => await ask(String(guestIp)), Boolean);
  await cp(dirname(String(vm.outputs["consoleLog"])), `/out/${name}`, { recursive: true, filter: isLog });
  match(said ?? "", new RegExp(`my root is ${HOST}:${String(nfsPath)} \\(nfs\\)`));
  match(said ?? "", /wrote \/var\/boots\.txt into it/);
  tell(`${name}: ${String(guestIp)} says "${said?.split("\n")[1]}"`);

  deepEqual(await vm.up(program), { action: "same", replaces: [] });
  await vm.refresh();
  deepEqual([vm.outputs["state"], vm.outputs["rootEvidence"]], ["running", "proved"]);
  await server.refresh();
  equal(server.outputs["state"], "running");
  tell(`${name}: the same program changes nothing, and a refresh finds both running`);
  return vm;
}

const isLog = (path: string): boolean => !/\/kernel$|\.img$|\.sock$/.test(path);

/** Whether somebody at the other end of the machine's cable gets a connection. */
async function fromBeyond(address: string, port: unknown): Promise<boolean> {
  const words = ["netns", "exec", "beyond", "busybox", "nc", "-w", "3", address, String(port), "-e", "true"];
  return (await runProcess("ip", words)).exitCode === 0;
}

story().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
