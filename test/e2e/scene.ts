/** What end-to-end tests share: guest roots on one real NFS server, a kernel, programs, and a look at the VMs that run. */

import { randomInt } from "node:crypto";
import { existsSync } from "node:fs";
import { appendFile, mkdir, mkdtemp, readdir, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect } from "vitest";
import { type EngineRun, type StackOptions, type StateResource, Stack, whyNoEngine } from "../lab/engine.js";
import { type GuestInit, makeGuestRoot } from "../lab/guest.js";
import { type NfsServer, startNfsServer, whyNoNfsServer } from "../lab/nfs.js";
import { isOnPath } from "../lab/programs.js";
import type { RunResult } from "../lab/run-process.js";

/** Why no guest can be booted by the engine here, as the reason of a skipped test; undefined when one can. */
export function whyNoGuest(): string | undefined {
  if (!process.env["MICROVM_LAB_KERNEL"]) return "no kernel in $MICROVM_LAB_KERNEL";
  if (!isOnPath("qemu-system-x86_64")) return "qemu-system-x86_64 is not installed";
  return whyNoEngine() ?? whyNoNfsServer();
}

/** The name of a suite, with the reason where it is skipped. */
export function suiteName(name: string, reason: string | undefined): string {
  return reason === undefined ? name : `${name} (skipped: ${reason})`;
}

/** Arguments of a MicroVm, as JSON. */
export type Args = Readonly<Record<string, unknown>>;

/** Guest roots, exported by one server on loopback; and the stacks that boot from them. */
export class Scene {
  /** Kernel that the guests boot. */
  readonly kernel = process.env["MICROVM_LAB_KERNEL"] ?? "";
  private readonly stacks: Stack[] = [];

  private constructor(
    /** Holds each root in a folder of its name. */
    readonly folder: string,
    readonly server: NfsServer,
  ) {}

  /** Makes the roots and serves each as an export of its own. */
  static async open(roots: Readonly<Record<string, GuestInit>>): Promise<Scene> {
    const folder = await realpath(await mkdtemp(join(tmpdir(), "e2e-")));
    const path = (name: string) => join(folder, name);
    for (const [name, init] of Object.entries(roots)) {
      await makeGuestRoot(path(name), init);
      await serveScripts(path(name));
    }
    const server = await startNfsServer({
      exports: Object.keys(roots).map((name) => ({ path: path(name) })),
    });
    return new Scene(folder, server);
  }

  /** Absolute path of a root, which is its export's path too. */
  root(name: string): string {
    return join(this.folder, name);
  }

  /** Arguments of a VM that boots from a root; its last word is awaited, which decides without a calm after the first. */
  args(root: string, more: Args = {}): Args {
    return {
      kernel: this.kernel,
      useNfsRoot: true,
      nfsServer: "127.0.0.1",
      nfsPort: this.server.nfsPort,
      nfsMountPort: this.server.mountPort,
      nfsPath: this.root(root),
      memoryMiB: 192,
      readiness: { console: "^guest: ready" },
      ...more,
    };
  }

  /** A stack that is disposed of with the scene. */
  async stack(program: StackOptions["program"], options: Omit<StackOptions, "program"> = {}): Promise<Stack> {
    const stack = await Stack.create({ program, ...options });
    this.stacks.push(stack);
    return stack;
  }

  async close(): Promise<void> {
    for (const stack of this.stacks) await stack.dispose();
    await this.server.kill();
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

/** Port of the guest on which {@link serveScripts} answers. */
export const SCRIPTS_PORT = 81;

/** The guest then tells its `/proc/cmdline` as `/cgi-bin/cmdline`, and powers itself off by `/cgi-bin/poweroff`. */
async function serveScripts(root: string): Promise<void> {
  const folder = join(root, "scripts/cgi-bin");
  await mkdir(folder, { recursive: true });
  for (const [name, command] of Object.entries({ cmdline: "cat /proc/cmdline", poweroff: "poweroff" })) {
    const script = `#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n${command}\n`;
    await writeFile(join(folder, name), script, { mode: 0o755 });
  }
  if (existsSync(join(root, "etc/inittab")))
    await appendFile(
      join(root, "etc/inittab"),
      `::respawn:/usr/sbin/httpd -f -p ${SCRIPTS_PORT} -h /scripts\n`,
    );
}

/** A free port of loopback for a forward, below those that outgoing connections take (ip(7), ip_local_port_range). */
export async function forwardPort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    const server = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
    });
    if (isFree) return port;
  }
}

/** A program with the named MicroVms, given as JSON; `rest` is more of the program's text. */
export function programOf(
  vms: Readonly<Record<string, { args: Args; options?: string }>>,
  rest = "",
): string {
  const lines = Object.entries(vms).map(
    ([name, { args, options = "{}" }]) =>
      `exports[${JSON.stringify(name)}] = new MicroVm(${JSON.stringify(name)}, ${JSON.stringify(args)}, ${options}).id;`,
  );
  return [
    'const pulumi = require("@pulumi/pulumi");',
    'const { MicroVm } = require("pulumi-microvm");',
    ...lines,
    rest,
  ].join("\n");
}

/** The one MicroVm of a stack, as the state has it. */
export async function theVm(stack: Stack): Promise<Vm> {
  const vms = await stack.resources();
  expect(vms).toHaveLength(1);
  return vmOf(vms[0]);
}

/** What the state says of a MicroVm. */
export interface Vm {
  readonly id: string;
  readonly urn: string;
  readonly vmName: string;
  readonly instance: string;
  readonly pid: number | undefined;
  readonly inputs: Args;
  readonly outputs: Args;
}

/** Reads a MicroVm out of the state. */
export function vmOf(resource: StateResource | undefined): Vm {
  const { id = "", urn = "", inputs = {}, outputs = {} } = resource ?? {};
  const [vmName = "", instance = ""] = id.split("/");
  const pid = outputs["pid"];
  return { id, urn, vmName, instance, pid: typeof pid === "number" ? pid : undefined, inputs, outputs };
}

/** Process ids of the VMMs of a stack that run now. */
export async function vmms(stack: Stack): Promise<number[]> {
  const processes = await stack.processes();
  return processes
    .filter(({ args }) => basename(args[0] ?? "").startsWith("qemu-system"))
    .map(({ pid }) => pid);
}

/** Looks at the VMMs of a stack again and again until it is told to stop. */
export function watchVmms(stack: Stack): { stop(): Promise<{ most: number; pids: readonly number[] }> } {
  const pids = new Set<number>();
  let most = 0;
  const done = new AbortController();
  const watching = (async () => {
    while (!done.signal.aborted) {
      const now = await vmms(stack);
      now.forEach((pid) => pids.add(pid));
      most = Math.max(most, now.length);
      await delay(30);
    }
  })();
  return {
    stop: async () => {
      done.abort();
      await watching;
      return { most, pids: [...pids] };
    },
  };
}

/** Ends an engine and its provider processes at once, as a power cut would. VMs stay. */
export async function killWithProviders(stack: Stack, run: EngineRun): Promise<void> {
  const pids = await processesOfEngine(stack);
  // A provider that runs on would undo its work.
  for (const signal of ["SIGSTOP", "SIGKILL"] as const) for (const pid of pids) signalIfThere(pid, signal);
  await run.result;
}

/** The next up, as a person goes on after the engine was killed: that has left its lock. */
export async function upAfterKill(stack: Stack): Promise<RunResult> {
  await stack.mustRun("cancel", "--yes");
  return stack.up();
}

/** The engine, its program and its providers share an environment, in which a VMM has no part. */
async function processesOfEngine(stack: Stack): Promise<number[]> {
  const names = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = [];
  for (const name of names) {
    const environment = await textOf(`/proc/${name}/environ`);
    if (environment.split("\0").includes(`PULUMI_HOME=${join(stack.folder, "pulumi")}`))
      found.push(Number(name));
  }
  return found;
}

function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

/** Holds that a command of the CLI went well, and shows all that it said where it did not. */
export function expectSuccess(result: RunResult): void {
  expect(result.exitCode, result.output).toBe(0);
}

/** Holds that a command failed with a message for a person: no stack trace, no word of Node's. */
export function expectFailure(result: RunResult): void {
  expect(result.exitCode, result.output).not.toBe(0);
  expect(result.output).not.toMatch(/^\s+at .*[(/].*:\d+:\d+\)?$/m);
  expect(result.output).not.toContain("UnhandledPromiseRejection");
}

/** The text of a file, empty while it is not there. */
export async function textOf(path: string): Promise<string> {
  return readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    // ESRCH: a process that ended while it was read of. EACCES: one of another container.
    if (["ENOENT", "ESRCH", "EACCES"].includes(error.code ?? "")) return "";
    throw error;
  });
}
