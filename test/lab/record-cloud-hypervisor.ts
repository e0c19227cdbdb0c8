/**
 * Records what the real Cloud Hypervisor answers, for tests on machines that have none:
 * `unshare --net npx tsx test/lab/record-cloud-hypervisor.ts` (as root, with CLOUD_HYPERVISOR) rewrites
 * test/provider/backends/cloud-hypervisor/recorded.json.
 */

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { Client } from "undici";

import { cloudHypervisorBinary } from "./programs.js";
import { scriptedKernel, scriptOf } from "./scripted-guest.js";

/** One request and its answer. */
export interface Exchange {
  readonly method: "GET" | "PUT";
  readonly path: string;
  readonly body?: unknown;
  readonly status: number;
  /** As it came; empty for none. */
  readonly text: string;
}

const TARGET = resolve(__dirname, "../provider/backends/cloud-hypervisor/recorded.json");
const MIB = 1_048_576;

async function record(binary: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "microvm-record-"));
  const socketPath = join(folder, "api.sock");
  const files = {
    kernel: join(folder, "kernel"),
    disk: join(folder, "disk"),
    console: join(folder, "console"),
  };
  await writeFile(files.kernel, scriptedKernel(...scriptOf("complete", "console=ttyS0", "nfs")));
  await writeFile(files.disk, Buffer.alloc(MIB));
  execFileSync("ip", ["tuntap", "add", "dev", "mvmrecord", "mode", "tap", "vnet_hdr"]);
  const vmm = spawn(binary, ["--api-socket", `path=${socketPath}`], { stdio: "ignore" });
  const ended = once(vmm, "exit");
  const exchanges: Exchange[] = [];
  try {
    for (let tries = 0; !existsSync(socketPath); tries++) {
      if (tries > 500) throw new Error("there is no socket");
      await delay(10);
    }
    const client = new Client("http://localhost", { socketPath });
    const put = (name: string, body?: unknown) => ask(client, "PUT", name, body, exchanges);
    const get = (name: string) => ask(client, "GET", name, undefined, exchanges);
    await get("vmm.ping");
    await get("vm.info");
    await put("vm.boot");
    await put("vm.create", { payload: { kernel: 7 } });
    await put("vm.create", {
      payload: { kernel: files.kernel, cmdline: "console=ttyS0" },
      cpus: { boot_vcpus: 1, max_vcpus: 2 },
      memory: { size: 128 * MIB, hotplug_size: 256 * MIB },
      disks: [{ id: "disk0", path: files.disk, num_queues: 1, image_type: "Raw" }],
      net: [{ id: "net0", tap: "mvmrecord", mac: "02:11:22:33:44:55", num_queues: 2 }],
      rng: { src: "/dev/urandom" },
      serial: { mode: "File", file: files.console },
      console: { mode: "Off" },
      vsock: { cid: 4711, socket: join(folder, "vsock") },
      landlock_enable: true,
      landlock_rules: [{ path: folder, access: "rw" }],
    });
    await get("vm.info");
    await put("vm.boot");
    await get("vm.info");
    await put("vm.resume");
    await put("vm.pause");
    await get("vm.info");
    await put("vm.resume");
    await put("vm.resize", { desired_vcpus: 2, desired_ram: 256 * MIB });
    await put("vm.resize", { desired_vcpus: 9 });
    await put("vm.resize-disk", { id: "disk0", desired_size: 2 * MIB });
    await put("vm.resize-disk", { id: "disk7", desired_size: 2 * MIB });
    await put("vm.power-button");
    await put("vm.shutdown");
    await get("vm.info");
    await put("vm.delete");
    await put("vmm.shutdown");
    await client.close();
    await ended;
  } finally {
    vmm.kill("SIGKILL");
    await rm(folder, { recursive: true, force: true });
  }
  const text = JSON.stringify(exchanges, undefined, 2).replaceAll(folder, "/state/vm");
  await writeFile(TARGET, `${text}\n`);
}

async function ask(
  client: Client,
  method: Exchange["method"],
  name: string,
  body: unknown,
  exchanges: Exchange[],
): Promise<void> {
  const path = `/api/v1/${name}`;
  const response = await client.request({
    method,
    path,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  exchanges.push({ method, path, body, status: response.statusCode, text: await response.body.text() });
}

if (require.main === module) {
  const binary = cloudHypervisorBinary();
  if (binary === undefined) throw new Error("set CLOUD_HYPERVISOR");
  void record(binary);
}
