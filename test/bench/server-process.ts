/**
 * Inside a network namespace: the REST server and, where it is there, Arrakis' own, each with as many VMs on Cloud Hypervisor, asked in
 * turn. Guests are scripted ones: for Arrakis, which waits for the command server in each guest, this host has the guests' addresses and
 * answers at once. Its only argument is a {@link ServerOrder}; it prints {@link ServerSamples} as JSON.
 */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { freemem, tmpdir, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Pool } from "undici";

import { endProcess, findByArgument } from "../../provider/host/process.js";
import { isInNamespace } from "../lab/namespace.js";
import { scriptedKernel, scriptOf } from "../lab/scripted-guest.js";

/** What is to be measured. */
export interface ServerOrder {
  /** Cloud Hypervisor's binary. */
  readonly binary: string;
  /** Arrakis' server; absent to leave it out. */
  readonly arrakis?: string;
  readonly vms: number;
  /** POSTs one after the other, and rounds of reading. */
  readonly posts: number;
  readonly rounds: number;
  readonly cycles: number;
}

/** What one server did. */
export interface OfServer {
  /** Seconds from POST to its answer. */
  readonly posts: number[];
  /** Requests per second for the list, of each round. */
  readonly rates: number[];
  /** Milliseconds of each round's slowest hundredth. */
  readonly p99s: number[];
  /** Resident memory of the server without and with its VMs, in MiB. */
  readonly emptyMiB: number;
  readonly fullMiB: number;
}

/** What was measured. */
export interface ServerSamples {
  readonly ours: OfServer;
  readonly arrakis?: OfServer;
  /** Heap in use after a collection, in MiB, and open descriptors: early in the cycles of create and delete, and at their end. */
  readonly heapsMiB: readonly [number, number];
  readonly descriptors: readonly [number, number];
}

const READERS = 8;
const ROUND_MILLISECONDS = 3000;
const AT_ONCE = 8;
/** So many cycles before the first look at the heap: all code is loaded and compiled by then. */
const WARM_CYCLES = 100;

/** One server with its pool of connections. */
class Server {
  readonly samples: OfServer = { posts: [], rates: [], p99s: [], emptyMiB: 0, fullMiB: 0 };
  readonly pool: Pool;

  constructor(
    readonly child: ChildProcess,
    readonly url: string,
  ) {
    this.pool = new Pool(url, { connections: READERS + AT_ONCE, headersTimeout: 0, bodyTimeout: 0 });
  }

  async ask(
    method: "GET" | "POST" | "DELETE",
    path: string,
    body?: object,
  ): Promise<{ status: number; text: string }> {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    const answer = await this.pool.request({
      method,
      path,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
    });
    return { status: answer.statusCode, text: await answer.body.text() };
  }

  /** Makes a VM; an address that two names share by chance is given to another name. */
  async post(vmName: string): Promise<string> {
    for (let tries = 0; ; tries += 1) {
      const name = tries === 0 ? vmName : `${vmName}-${tries}`;
      const { status, text } = await this.ask("POST", "/v1/vms", { vmName: name });
      if (status === 200) return name;
      if (status !== 409 || tries === 3) throw new Error(`POST ${name}: ${status} ${text}`);
    }
  }

  async timedPost(vmName: string): Promise<void> {
    const begun = performance.now();
    await this.post(vmName);
    this.samples.posts.push((performance.now() - begun) / 1000);
  }

  /** Reads the list as fast as it comes. */
  async read(): Promise<void> {
    const times: number[] = [];
    const end = performance.now() + ROUND_MILLISECONDS;
    const reader = async (): Promise<void> => {
      while (performance.now() < end) {
        const begun = performance.now();
        await this.ask("GET", "/v1/vms");
        times.push(performance.now() - begun);
      }
    };
    await Promise.all(Array.from({ length: READERS }, reader));
    times.sort((a, b) => a - b);
    this.samples.rates.push((times.length * 1000) / ROUND_MILLISECONDS);
    this.samples.p99s.push(times[Math.floor(times.length * 0.99)] ?? 0);
  }

  get residentMiB(): number {
    const status = readFileSync(`/proc/${this.child.pid}/status`, "utf8");
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
  }

  async close(): Promise<void> {
    await this.pool.destroy();
    const ended = once(this.child, "exit");
    this.child.kill("SIGTERM");
    await ended;
  }
}

async function measure(order: ServerOrder): Promise<ServerSamples> {
  const folder = await mkdtemp(join(tmpdir(), "bench-server-"));
  const servers: Server[] = [];
  const helpers: ChildProcess[] = [];
  try {
    await writeFile(
      join(folder, "kernel.elf"),
      scriptedKernel(...scriptOf("silent", "root=/dev/vda", "disk")),
    );
    await writeFile(join(folder, "root.img"), Buffer.alloc(1024 * 1024));
    const ours = await startOurs(folder, order);
    servers.push(ours);
    const arrakis =
      order.arrakis === undefined ? undefined : await startArrakis(folder, order.arrakis, order, helpers);
    if (arrakis !== undefined) servers.push(arrakis);
    for (const server of servers) Object.assign(server.samples, { emptyMiB: server.residentMiB });
    for (let post = 0; post < order.posts; post += 1) {
      for (const server of servers) await server.timedPost(`timed-${post}`);
    }
    for (const server of servers) {
      const names = Array.from({ length: order.vms - order.posts }, (_, index) => `vm-${index}`);
      await atOnce(names, (name) => server.post(name));
    }
    for (const server of servers) await server.read(); // what is not measured: connections, compiled code
    for (const server of servers) Object.assign(server.samples, { rates: [], p99s: [] });
    for (let round = 0; round < order.rounds; round += 1) {
      for (const server of servers) await server.read();
    }
    for (const server of servers) Object.assign(server.samples, { fullMiB: server.residentMiB });
    await ours.ask("DELETE", "/v1/vms");
    const cycles = await cycle(ours, order.cycles);
    return { ours: ours.samples, arrakis: arrakis?.samples, ...cycles };
  } finally {
    for (const server of servers) await server.close();
    for (const helper of helpers) helper.kill("SIGKILL");
    for (const vmm of findByArgument(`${folder}/`)) await endProcess(vmm, 0);
    await rm(folder, { recursive: true, force: true });
  }
}

/** Makes and deletes VMs, and looks at what is left of them in the server. */
async function cycle(
  server: Server,
  count: number,
): Promise<Pick<ServerSamples, "heapsMiB" | "descriptors">> {
  const run = async (name: string): Promise<void> => {
    const { status, text } = await server.ask("DELETE", `/v1/vms/${await server.post(name)}`);
    if (status !== 200) throw new Error(`DELETE ${name}: ${status} ${text}`);
  };
  const names = Array.from({ length: count }, (_, index) => `cycle-${index}`);
  await atOnce(names.slice(0, WARM_CYCLES), run);
  const before = await left(server);
  await atOnce(names.slice(WARM_CYCLES), run);
  const after = await left(server);
  return { heapsMiB: [before.heapMiB, after.heapMiB], descriptors: [before.descriptors, after.descriptors] };
}

async function left(server: Server): Promise<{ heapMiB: number; descriptors: number }> {
  // What expires after a while has expired then, connections included.
  await delay(5000);
  server.child.kill("SIGUSR2");
  await delay(500);
  const { text } = await server.ask("GET", "/metrics");
  const valueOf = (name: string): number => Number(new RegExp(`^${name} (\\S+)`, "m").exec(text)?.[1]);
  return {
    heapMiB: valueOf("nodejs_heap_size_used_bytes") / 2 ** 20,
    descriptors: valueOf("process_open_fds"),
  };
}

async function atOnce(names: readonly string[], work: (name: string) => Promise<unknown>): Promise<void> {
  const waiting = [...names];
  const worker = async (): Promise<void> => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) await work(name);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

async function startOurs(folder: string, { binary }: ServerOrder): Promise<Server> {
  await mkdir(join(folder, "run"), { mode: 0o700 });
  const config = join(folder, "ours.yaml");
  const restserver = {
    state_dir: "./ours",
    chv_bin: binary,
    hypervisor: "cloud-hypervisor",
    kernel: "./kernel.elf",
    rootfs: "./root.img",
  };
  await writeFile(config, JSON.stringify({ hostservices: { restserver } }));
  const args = ["--expose-gc", "--require", join(__dirname, "scripted-host.cjs")];
  const program = join(__dirname, "../../dist/provider/cli/restserver.js");
  const child = spawn(
    process.execPath,
    [...args, program, "--config", config, "--port", "0", "--shutdown-timeout", "0"],
    { env: { ...process.env, XDG_RUNTIME_DIR: join(folder, "run") }, stdio: ["ignore", "pipe", "inherit"] },
  );
  return new Server(child, await urlIn(child));
}

/** The first URL in what a program prints; what comes later is read, too, so that it never waits for a reader. */
async function urlIn({ stdout }: ChildProcess): Promise<string> {
  let text = "";
  return await new Promise((resolve, reject) => {
    stdout?.on("data", (chunk: Buffer) => {
      if (text.length > 65_536) return;
      text += chunk.toString();
      const [url] = /http:\/\/127\.0\.0\.1:[0-9]+/.exec(text) ?? [];
      if (url !== undefined) resolve(url);
    });
    stdout?.once("end", () => reject(new Error(`the server did not listen: ${text}`)));
  });
}

const ARRAKIS_PORT = 7101;
const COMMAND_PORT = 4031;
const BRIDGE = "benchbr0";
/** Arrakis has no fewer for a guest. */
const LEAST_MEMORY = 1.05 * 2 ** 30;

async function startArrakis(
  folder: string,
  program: string,
  { binary, vms }: ServerOrder,
  helpers: ChildProcess[],
): Promise<Server> {
  const own = join(folder, "arrakis");
  await mkdir(own);
  for (let host = 2; host < vms + 10; host += 1) {
    execFileSync("ip", ["address", "add", `10.77.1.${host}/32`, "dev", "lo"]);
  }
  // It masquerades its guests behind the interface of the default route.
  execFileSync("ip", ["link", "add", "benchout0", "type", "bridge"]);
  execFileSync("ip", ["address", "add", "192.0.2.1/24", "dev", "benchout0"]);
  execFileSync("ip", ["link", "set", "benchout0", "up"]);
  execFileSync("ip", ["route", "add", "default", "via", "192.0.2.2", "dev", "benchout0"]);
  const percentage = Math.max(1, Math.ceil((LEAST_MEMORY * 100) / totalmem()));
  if (freemem() < 2 ** 30) throw new Error("this machine has too little memory left");
  const restserver = {
    host: "127.0.0.1",
    port: String(ARRAKIS_PORT),
    state_dir: join(own, "state"),
    chv_bin: binary,
    bridge_name: BRIDGE,
    bridge_ip: "10.77.1.1/24",
    bridge_subnet: "10.77.1.0/24",
    kernel: join(folder, "kernel.elf"),
    rootfs: join(folder, "root.img"),
    initramfs: join(folder, "root.img"),
    port_forwards: [],
    stateful_size_in_mb: "16",
    guest_mem_percentage: String(percentage),
    // The releases with NFS want one.
    nfs_enabled: true,
    nfs_server: "10.77.1.1",
    nfs_port: 11111,
    nfs_path: "/",
  };
  const guestservices = { codeserver: { port: "4030" }, cmdserver: { port: String(COMMAND_PORT) } };
  const config = join(own, "config.yaml");
  await writeFile(config, JSON.stringify({ hostservices: { restserver }, guestservices }));
  helpers.push(spawn(join(dirname(program), "arrakis-cmdserver"), [], { cwd: own, stdio: "ignore" }));
  const log = await open(join(own, "log"), "w+");
  const child = spawn(program, ["--config", config], { cwd: own, stdio: ["ignore", log.fd, log.fd] });
  const server = new Server(child, `http://127.0.0.1:${ARRAKIS_PORT}`);
  for (let tries = 0; ; tries += 1) {
    try {
      await server.ask("GET", "/v1/health");
      await log.close();
      return server;
    } catch (error) {
      if (tries < 100 && child.exitCode === null) {
        await delay(100);
        continue;
      }
      const said = await readFile(join(own, "log"), "utf8");
      throw new Error(
        `${program} does not listen; it says: ${said.trimEnd().split("\n").slice(-3).join("\n")}`,
        {
          cause: error,
        },
      );
    }
  }
}

if (require.main === module) {
  if (!isInNamespace()) throw new Error("this runs in a network namespace alone");
  const order = JSON.parse(process.argv[2] ?? "") as ServerOrder;
  void measure(order).then((samples) => console.log(JSON.stringify(samples)));
}
