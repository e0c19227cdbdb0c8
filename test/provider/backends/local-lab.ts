/** What the contract of local back ends runs on: guests' roots, an NFS server, kernels, a state directory of its own. */

import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { expect } from "vitest";

import type {
  Backend,
  CreateRequest,
  PowerState,
  QemuBackend,
  VmOutputs,
  VmReference,
} from "../../../provider/backends/backend.js";
import { type BootConfiguration, type BootFile, bootConfiguration } from "../../../provider/boot/boot.js";
import { MicroVmError } from "../../../provider/errors.js";
import { digestOf } from "../../../provider/host/boot-files.js";
import { ensureInitramfs } from "../../../provider/host/initramfs/initramfs.js";
import { vmPaths } from "../../../provider/host/paths.js";
import { endProcess, findByArgument } from "../../../provider/host/process.js";
import { readRecord, type VmRecord } from "../../../provider/host/record.js";
import { bootNeeds } from "../../../provider/preflight/kernel/boot-needs.js";
import { inspectKernel } from "../../../provider/preflight/kernel/inspect.js";
import type { Spec } from "../../../provider/spec/spec.js";
import { type GuestInit, makeDiskImage, makeGuestRoot } from "../../lab/guest.js";
import { type NfsServer, startNfsServer } from "../../lab/nfs.js";

const GUESTS: readonly GuestInit[] = ["complete", "deaf", "silent", "exits", "wrong-format", "missing"];

/** What a test may choose of a VM; the rest has the lab's defaults. */
export interface VmChoice {
  readonly vmName?: string;
  readonly guest?: GuestInit;
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
  readonly machine?: QemuBackend["machine"];
  readonly signal?: AbortSignal;
  readonly owner?: string;
}

/** A kernel, with the initramfs that each boot of it needs. */
interface Kernel {
  readonly kernel: BootFile;
  readonly initramfs: (choice: VmChoice) => Promise<BootConfiguration["initramfs"]>;
}

export class LocalLab {
  readonly notices: string[] = [];

  private constructor(
    readonly backend: Backend,
    readonly folder: string,
    readonly server: NfsServer,
    readonly kernel: Kernel,
  ) {}

  static async open(backend: Backend, kernelPath: string): Promise<LocalLab> {
    const folder = await mkdtemp(join(tmpdir(), "microvm-lab-"));
    // Sockets and leases of these tests are nobody else's.
    process.env["XDG_RUNTIME_DIR"] = join(folder, "run");
    await mkdir(join(folder, "run"), { mode: 0o700 });
    for (const guest of GUESTS) await makeGuestRoot(join(folder, guest), guest);
    await makeDiskImage(join(folder, "complete"), join(folder, "root.img"));
    const server = await startNfsServer({ exports: GUESTS.map((guest) => ({ path: join(folder, guest) })) });
    return new LocalLab(backend, folder, server, await kernelOf(kernelPath, join(folder, "cache")));
  }

  get stateDirectory(): string {
    return join(this.folder, "state");
  }

  async close(): Promise<void> {
    // What a failed test has left running.
    for (const vmm of findByArgument(`${this.stateDirectory}/`)) await endProcess(vmm, 0);
    await this.server.stop();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** One more server for the same exports. */
  async secondServer(): Promise<NfsServer> {
    return await startNfsServer({ exports: [{ path: join(this.folder, "complete") }] });
  }

  async request(choice: VmChoice = {}): Promise<CreateRequest> {
    const vmName = choice.vmName ?? `vm-${randomBytes(3).toString("hex")}`;
    const spec = this.#spec(vmName, choice);
    const facts = {
      kernel: this.kernel.kernel,
      initramfs: await this.kernel.initramfs(choice),
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
      boot: bootConfiguration(spec, facts),
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

  async remove(reference: VmReference, shutdownTimeoutSeconds = 20): Promise<void> {
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
    expect(this.leftoversOf(request)).toEqual([]);
    if (error instanceof MicroVmError) return error;
    throw new Error("the create did not fail as expected", { cause: error });
  }

  async console(vm: VmOutputs): Promise<string> {
    return (await readFile(vm.consoleLog, "utf8")).replaceAll("\r", "");
  }

  /** What is left of a VM: its processes, and files of state and runtime directory; empty when there is nothing. */
  leftoversOf({ vmName, instance }: Pick<CreateRequest, "vmName" | "instance">): string[] {
    const processes = findByArgument(instance).map(({ pid }) => `process ${pid}`);
    const paths = [this.stateDirectory, join(this.folder, "run")].flatMap((folder) =>
      existsSync(folder)
        ? readdirSync(folder, { recursive: true, encoding: "utf8" }).map((path) => join(folder, path))
        : [],
    );
    const leases = paths.filter(
      (path) =>
        path.endsWith("holder.json") && !path.includes("/.") && readFileSync(path, "utf8").includes(instance),
    );
    const files = paths.filter((path) => path.includes(instance) || path.includes(`/${vmName}`));
    return [...processes, ...files, ...leases];
  }

  #spec(vmName: string, choice: VmChoice): Spec {
    const server = choice.server ?? this.server;
    const root =
      choice.disk === true
        ? ({ useNfsRoot: false, rootfs: join(this.folder, "root.img") } as const)
        : ({
            useNfsRoot: true,
            nfsServer: "127.0.0.1",
            nfsPort: server.nfsPort,
            nfsPath: choice.nfsPath ?? join(this.folder, choice.guest ?? "complete"),
            nfsMountPort: server.mountPort,
            nfsOptions: "",
          } as const);
    return {
      ...root,
      vmName,
      kernel: this.kernel.kernel.path,
      kernelArgs: choice.kernelArgs ?? ["panic=-1"],
      ip: "static",
      vcpus: 1,
      memoryMiB: 256,
      statefulDiskMiB: choice.statefulDiskMiB ?? 0,
      portForwards: choice.portForwards ?? [],
      guestAccess: choice.guestAccess ?? "internet",
      powerState: choice.powerState ?? "running",
      readiness: { timeoutSeconds: choice.timeoutSeconds ?? 120, console: choice.console },
      shutdownTimeoutSeconds: choice.shutdownTimeoutSeconds ?? 20,
      backend: { type: "qemu", machine: choice.machine ?? "q35", accelerator: "auto" },
      preflight: "error",
    };
  }
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
