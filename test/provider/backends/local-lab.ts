/** What the contract of local back ends runs on: guests' roots, an NFS server, kernels, a state directory of its own. */

import { deepEqual } from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type {
  Backend,
  LocalBackend,
  CreateRequest,
  PowerState,
  QemuBackend,
  VmOutputs,
  VmReference,
} from "../../../provider/backends/backend.js";
import { type BootConfiguration, type BootFile, bootConfiguration } from "../../../provider/boot/boot.js";
import { type ErrorCode, MicroVmError } from "../../../provider/errors.js";
import { digestOf } from "../../../provider/host/boot-files.js";
import { ensureInitramfs } from "../../../provider/host/initramfs/initramfs.js";
import { vmPaths } from "../../../provider/host/paths.js";
import { endProcess, findByArgument } from "../../../provider/host/process.js";
import { readRecord, type VmRecord } from "../../../provider/host/record.js";
import { bootNeeds } from "../../../provider/preflight/kernel/boot-needs.js";
import { inspectKernel } from "../../../provider/preflight/kernel/inspect.js";
import { FRESH_MILLISECONDS } from "../../../provider/server/listing.js";
import type { Spec } from "../../../provider/spec/spec.js";
import { type GuestInit, makeDiskImage, makeGuestRoot } from "../../lab/guest.js";
import { type NfsServer, startNfsServer } from "../../lab/nfs.js";
import { type ScriptedKind, scriptedKernel, scriptOf } from "../../lab/scripted-guest.js";
import { leftovers } from "./leftovers.js";
import { Served } from "./served.js";

const GUESTS: readonly GuestInit[] = ["complete", "deaf", "silent", "exits", "wrong-format", "missing"];

/** What a test may choose of a VM; the rest has the lab's defaults. */
export interface VmChoice {
  readonly vmName?: string;
  readonly guest?: GuestInit | ScriptedKind;
  /** Instead of the guest's export. */
  readonly nfsPath?: string;
  readonly server?: NfsServer;
  readonly disk?: boolean;
  readonly powerState?: PowerState;
  readonly console?: string;
  readonly timeoutSeconds?: number;
  readonly shutdownTimeoutSeconds?: number;
  readonly portForwards?: Spec["portForwards"];
  readonly guestAccess?: Spec["guestAccess"];
  readonly statefulDiskMiB?: number;
  readonly kernelArgs?: readonly string[];
  readonly entryPoint?: string;
  readonly machine?: QemuBackend["machine"];
  readonly signal?: AbortSignal;
  readonly owner?: string;
  readonly vcpus?: number;
  readonly maxVcpus?: number;
  readonly memoryMiB?: number;
  readonly maxMemoryMiB?: number;
}

/** A kernel, with the initramfs that each boot of it needs. */
interface Kernel {
  readonly kernel: BootFile;
  readonly initramfs: (choice: VmChoice) => Promise<BootConfiguration["initramfs"]>;
}

/** A lab's guests: Linux with a root that a server exports, or ones that only say what such a guest would. */
type Guests =
  | { readonly kind: "linux"; readonly kernel: Kernel; readonly server: NfsServer }
  | { readonly kind: "scripted"; readonly through?: Through };

/** A server that runs the VMs, and the NFS server that it looks at before it does. */
interface Through {
  readonly served: Served;
  readonly server: NfsServer;
}

export class LocalLab {
  readonly notices: string[] = [];

  private constructor(
    readonly backend: Backend,
    readonly folder: string,
    readonly guests: Guests,
    readonly options: LocalBackend,
    readonly network?: Spec["network"],
  ) {}

  /** A lab whose guests are scripted (see test/lab/scripted-guest.ts): there is no NFS server. */
  static async openScripted(
    backend: Backend,
    options: LocalBackend,
    network?: Spec["network"],
  ): Promise<LocalLab> {
    const folder = await makeFolder();
    await writeFile(join(folder, "root.img"), Buffer.alloc(1024 * 1024));
    return new LocalLab(backend, folder, { kind: "scripted" }, options, network);
  }

  /** A lab whose guests are scripted, and whose VMs a REST server runs on QEMU. */
  static async openServed(): Promise<LocalLab> {
    const folder = await makeFolder();
    await writeFile(join(folder, "root.img"), Buffer.alloc(1024 * 1024));
    await makeGuestRoot(join(folder, "complete"));
    const server = await startNfsServer({ exports: [{ path: join(folder, "complete") }] });
    const served = await Served.open(folder);
    const options = { type: "qemu", machine: "q35", accelerator: "auto" } as const;
    return new LocalLab(served.backend, folder, { kind: "scripted", through: { served, server } }, options);
  }

  static async open(backend: Backend, kernelPath: string): Promise<LocalLab> {
    const folder = await makeFolder();
    for (const guest of GUESTS) await makeGuestRoot(join(folder, guest), guest);
    await makeDiskImage(join(folder, "complete"), join(folder, "root.img"));
    const server = await startNfsServer({ exports: GUESTS.map((guest) => ({ path: join(folder, guest) })) });
    const kernel = await kernelOf(kernelPath, join(folder, "cache"));
    const options = { type: "qemu", machine: "q35", accelerator: "auto" } as const;
    return new LocalLab(backend, folder, { kind: "linux", kernel, server }, options);
  }

  /** The server of the guests' roots. */
  get server(): NfsServer {
    if (this.guests.kind === "linux") return this.guests.server;
    throw new Error("scripted guests have no NFS server");
  }

  /** Whether its VMs are in a VMM that somebody else keeps running: then it has neither process nor rules of ours. */
  get isAttached(): boolean {
    return this.options.type === "cloud-hypervisor" && this.options.apiSocket !== undefined;
  }

  /** Whether its VMs are asked for through REST. */
  get isServed(): boolean {
    return this.#through !== undefined;
  }

  /** What the back end's own failure is called. */
  get failureCode(): ErrorCode {
    return this.isServed ? "server-failed" : "vmm-failed";
  }

  /** Waits until the back end sees what was changed behind its back: a server's list is a moment old. */
  async untilSeen(): Promise<void> {
    if (this.isServed) await new Promise((resolve) => setTimeout(resolve, FRESH_MILLISECONDS));
  }

  get #through(): Through | undefined {
    return this.guests.kind === "scripted" ? this.guests.through : undefined;
  }

  get stateDirectory(): string {
    return join(this.folder, "state");
  }

  async close(): Promise<void> {
    await this.#through?.served.close();
    // What a failed test has left running.
    for (const vmm of findByArgument(`${this.stateDirectory}/`)) await endProcess(vmm, 0);
    if (this.guests.kind === "linux") await this.guests.server.stop();
    await this.#through?.server.stop();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** One more server for the same exports. */
  async secondServer(): Promise<NfsServer> {
    return await startNfsServer({ exports: [{ path: join(this.folder, "complete") }] });
  }

  async request(choice: VmChoice = {}): Promise<CreateRequest> {
    const vmName = choice.vmName ?? `vm-${randomBytes(3).toString("hex")}`;
    const spec = this.#spec(vmName, choice);
    const { guests } = this;
    const facts = {
      kernel: guests.kind === "linux" ? guests.kernel.kernel : { path: spec.kernel, sha256: "" },
      initramfs: guests.kind === "linux" ? await guests.kernel.initramfs(choice) : undefined,
      nfsServerAddress: spec.useNfsRoot ? "127.0.0.1" : undefined,
      statefulDisk: vmPaths(this.stateDirectory, vmName).statefulDisk,
    };
    const { backend, powerState, readiness, shutdownTimeoutSeconds } = spec;
    return {
      vmName,
      instance: randomBytes(8).toString("hex"),
      stateDirectory: this.stateDirectory,
      owner: {
        organization: "organization",
        urn: choice.owner ?? `urn:pulumi:dev::lab::${vmName}`,
        program: "/lab",
      },
      boot: await this.#boot(bootConfiguration(spec, facts), choice),
      settings: { backend, powerState, readiness, shutdownTimeoutSeconds },
      signal: choice.signal ?? new AbortController().signal,
      notice: (line) => this.notices.push(line),
    };
  }

  /** Makes a VM by the back end. */
  async create(
    choice: VmChoice = {},
  ): Promise<{ request: CreateRequest; vm: VmOutputs; reference: VmReference }> {
    const request = await this.request(choice);
    const vm = await this.backend.create(request);
    return { request, vm, reference: referenceOf(request, vm) };
  }

  /** Brings a VM to what the request says now. */
  async update(reference: VmReference, request: CreateRequest): Promise<VmOutputs> {
    const { boot, settings, signal, notice } = request;
    return await this.backend.update({ reference, boot, settings, signal, notice });
  }

  async remove(reference: VmReference, shutdownTimeoutSeconds = this.#patienceSeconds): Promise<void> {
    const { signal } = new AbortController();
    const notice = (line: string): number => this.notices.push(line);
    await this.backend.remove({ reference, shutdownTimeoutSeconds, signal, notice });
  }

  /** The error of a create that fails and leaves nothing. */
  async failureOf(request: CreateRequest): Promise<MicroVmError> {
    const error: unknown = await this.backend.create(request).then(
      async (vm) => await this.remove(referenceOf(request, vm), 0),
      (reason: unknown) => reason,
    );
    deepEqual(this.leftoversOf(request), []);
    if (error instanceof MicroVmError) return error;
    throw new Error("the create did not fail as expected", { cause: error });
  }

  async console(vm: VmOutputs): Promise<string> {
    return (await readFile(vm.consoleLog, "utf8")).replaceAll("\r", "");
  }

  /** What is left of a VM; empty when there is nothing. */
  leftoversOf({ vmName, instance }: Pick<CreateRequest, "vmName" | "instance">): string[] {
    const { folder, stateDirectory } = this;
    // A server names instances by itself.
    return leftovers({ folder, stateDirectory, vmName, instance: this.isServed ? undefined : instance });
  }

  /** A scripted guest hears no power button. */
  get #patienceSeconds(): number {
    return this.guests.kind === "linux" ? 20 : 1;
  }

  /** A scripted guest's kernel says what it is to say: it is made for its boot. */
  async #boot(boot: BootConfiguration, choice: VmChoice): Promise<BootConfiguration> {
    if (this.guests.kind === "linux") return boot;
    // A server has one pattern for all its guests: one that never says what is waited for says nothing.
    const isMute = this.isServed && choice.console !== undefined;
    const guest = isMute ? "mute" : ((choice.guest ?? "complete") as ScriptedKind);
    const kernel = scriptedKernel(...scriptOf(guest, boot.cmdline, boot.root.type));
    await writeFile(boot.kernel.path, kernel);
    return {
      ...boot,
      kernel: { path: boot.kernel.path, sha256: createHash("sha256").update(kernel).digest("hex") },
    };
  }

  /** The last word of a guest that has one: it decides without a calm after the first. */
  #lastWord({ guest = "complete" }: VmChoice): string | undefined {
    // The other way, by the calm, is seen often enough on a VMM of our own.
    const isDecided = this.guests.kind === "linux" || this.isAttached;
    return isDecided && guest === "complete" ? "^guest: ready" : undefined;
  }

  #spec(vmName: string, choice: VmChoice): Spec {
    const { guests, options } = this;
    const ownServer = guests.kind === "linux" ? guests.server : guests.through?.server;
    const server = choice.server ?? ownServer ?? { nfsPort: 9, mountPort: 9 };
    const root =
      choice.disk === true
        ? ({ useNfsRoot: false, rootfs: join(this.folder, "root.img") } as const)
        : ({
            useNfsRoot: true,
            nfsServer: "127.0.0.1",
            nfsPort: server.nfsPort,
            nfsPath: choice.nfsPath ?? join(this.folder, (!this.isServed && choice.guest) || "complete"),
            nfsMountPort: server.mountPort,
            nfsOptions: "",
          } as const);
    return {
      ...root,
      vmName,
      kernel: guests.kind === "linux" ? guests.kernel.kernel.path : join(this.folder, `${vmName}.elf`),
      kernelArgs: choice.kernelArgs ?? ["panic=-1"],
      entryPoint: choice.entryPoint,
      ip: "static",
      vcpus: choice.vcpus ?? 1,
      memoryMiB: choice.memoryMiB ?? 256,
      maxVcpus: choice.maxVcpus,
      maxMemoryMiB: choice.maxMemoryMiB,
      statefulDiskMiB: choice.statefulDiskMiB ?? 0,
      portForwards: choice.portForwards ?? [],
      network: this.network,
      guestAccess: choice.guestAccess ?? "internet",
      powerState: choice.powerState ?? "running",
      readiness: {
        timeoutSeconds: choice.timeoutSeconds ?? 120,
        console: choice.console ?? this.#lastWord(choice),
      },
      shutdownTimeoutSeconds: choice.shutdownTimeoutSeconds ?? this.#patienceSeconds,
      backend: options.type === "qemu" ? { ...options, machine: choice.machine ?? options.machine } : options,
      preflight: "error",
    };
  }
}

/** A folder of the lab; sockets and leases of its tests are nobody else's. */
async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "microvm-lab-"));
  process.env["XDG_RUNTIME_DIR"] = join(folder, "run");
  await mkdir(join(folder, "run"), { mode: 0o700 });
  return folder;
}

const RECORD_POLL_MILLISECONDS = 2;

/** The record of a VM, once it is as wanted. */
export async function untilPhase(
  request: CreateRequest,
  wanted: (record: VmRecord) => boolean,
): Promise<VmRecord> {
  for (;;) {
    const record = await readRecord(request.stateDirectory, request.vmName).catch(() => undefined);
    if (record !== undefined && wanted(record)) return record;
    await new Promise((resolve) => setTimeout(resolve, RECORD_POLL_MILLISECONDS));
  }
}

/** Names a VM as the engine's state would. */
export function referenceOf(request: CreateRequest, vm: VmOutputs): VmReference {
  const { vmName, instance, stateDirectory } = request;
  return { vmName, instance, stateDirectory, hostId: vm.hostId };
}

async function kernelOf(path: string, cacheDirectory: string): Promise<Kernel> {
  const facts = await inspectKernel(path);
  return {
    kernel: { path, sha256: await digestOf(path, "kernel") },
    async initramfs({ disk = false, statefulDiskMiB = 0, machine = "q35" }) {
      const hasDisks = disk || statefulDiskMiB > 0;
      const verdict = bootNeeds(facts, {
        root: disk ? "disk" : "nfs",
        dhcp: false,
        machine,
        disks: hasDisks,
        overlay: disk && statefulDiskMiB > 0,
        ownInitramfs: false,
      });
      if (verdict.kind === "boots") return undefined;
      if (verdict.kind !== "initramfs") throw new Error(`${path} cannot boot: ${JSON.stringify(verdict)}`);
      const { modules, optionalModules } = verdict;
      return await ensureInitramfs({ facts, modules, optionalModules, cacheDirectory });
    },
  };
}
