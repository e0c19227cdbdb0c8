/**
 * The real Arrakis in this process's network namespace. It needs KVM for its Cloud Hypervisor; no Linux need boot: what answers for
 * the guest is the real command server of Arrakis, at an address that this namespace has for itself.
 */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { cloudHypervisorBinary, isOnPath } from "./programs.js";
import { scriptedKernel, scriptOf } from "./scripted-guest.js";

/** Why the real Arrakis cannot be had here; undefined when it can. */
export function whyNoArrakis(): string | undefined {
  if (!process.env["ARRAKIS_RESTSERVER"]) return "set ARRAKIS_RESTSERVER to the real arrakis-restserver";
  if (!process.env["ARRAKIS_CMDSERVER"]) return "set ARRAKIS_CMDSERVER to the real arrakis-cmdserver";
  if (cloudHypervisorBinary() === undefined) return "set CLOUD_HYPERVISOR to the real cloud-hypervisor";
  return isOnPath("iptables") ? undefined : "iptables is not installed";
}

/** Addresses that Arrakis gives its first guests, in its order. */
const GUESTS = ["10.20.1.2", "10.20.1.3", "10.20.1.4", "10.20.1.5", "10.20.1.6", "10.20.1.7"];
const PORT = 7000;

/** A server that runs. */
export interface RealArrakis {
  readonly url: string;
  /** Absolute path of a kernel that Cloud Hypervisor boots, and of a file that counts as initramfs and root disk. */
  readonly kernel: string;
  readonly image: string;
  /** What `cat /proc/mounts` prints in every guest from now on. */
  readonly setMounts: (text: string) => Promise<void>;
  /** Ends what answers for the guests. */
  readonly silenceGuests: () => void;
  stop(): Promise<void>;
}

/** Starts the server. This process must be in a network and a mount namespace of its own: the server removes every tap that it finds. */
export async function startArrakis(): Promise<RealArrakis> {
  const folder = await mkdtemp(join(tmpdir(), "microvm-arrakis-"));
  const [kernel, image] = [join(folder, "kernel"), join(folder, "image")];
  const [mounts, bin, state] = [join(folder, "mounts"), join(folder, "bin"), join(folder, "state")];
  await writeFile(kernel, scriptedKernel(...scriptOf("complete", "console=ttyS0", "nfs")));
  await writeFile(image, Buffer.alloc(1_048_576));
  await mkdir(bin);
  await mkdir(state);
  await mkdir("/tmp/server_files", { recursive: true });
  const cat = join(bin, "cat");
  await writeFile(cat, `#!/bin/sh\n[ "$1" = /proc/mounts ] && exec /bin/cat ${mounts}\nexec /bin/cat "$@"\n`);
  await chmod(cat, 0o755);
  const setMounts = async (text: string) => await writeFile(mounts, text);
  await setMounts("");
  // The command server looks for programs in /usr/local/bin first.
  execFileSync("mount", ["--bind", bin, "/usr/local/bin"]);
  makeNetwork();
  const config = join(folder, "config.yaml");
  await writeFile(config, configOf(state, kernel, image));
  const guests = start(process.env["ARRAKIS_CMDSERVER"] ?? "", []);
  const server = start(process.env["ARRAKIS_RESTSERVER"] ?? "", ["--config", config], folder);
  const url = `http://127.0.0.1:${PORT}`;
  await untilUp(`${url}/v1/health`);
  return {
    url,
    kernel,
    image,
    setMounts,
    silenceGuests: () => void guests.kill("SIGKILL"),
    stop: async () => {
      guests.kill("SIGKILL");
      await end(server);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function ip(...words: string[]): void {
  execFileSync("ip", words, { stdio: ["ignore", "ignore", "inherit"] });
}

function makeNetwork(): void {
  ip("link", "set", "lo", "up");
  for (const address of GUESTS) ip("addr", "add", `${address}/32`, "dev", "lo");
  // Arrakis masquerades to whatever the default route leads to.
  ip("link", "add", "out0", "type", "bridge");
  ip("addr", "add", "192.0.2.2/24", "dev", "out0");
  ip("link", "set", "out0", "up");
  ip("route", "add", "default", "via", "192.0.2.1");
}

function configOf(state: string, kernel: string, image: string): string {
  return `hostservices:
  restserver:
    host: "127.0.0.1"
    port: "${PORT}"
    state_dir: "${state}"
    bridge_name: "br0"
    bridge_ip: "10.20.1.1/24"
    bridge_subnet: "10.20.1.0/24"
    chv_bin: "${cloudHypervisorBinary()}"
    kernel: "${kernel}"
    rootfs: "${image}"
    initramfs: "${image}"
    port_forwards:
      - port: "5901"
        description: "gui"
    stateful_size_in_mb: "64"
    guest_mem_percentage: "5"
guestservices:
  codeserver:
    port: "4030"
  cmdserver:
    port: "4031"
`;
}

function start(program: string, args: readonly string[], cwd?: string): ChildProcess {
  return spawn(program, args, { stdio: "ignore", ...(cwd === undefined ? {} : { cwd }) });
}

async function untilUp(url: string): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    try {
      if ((await fetch(url)).ok) return;
    } catch {
      // not up yet
    }
    await delay(50);
  }
  throw new Error(`nobody answers at ${url}`);
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  await ended;
}
