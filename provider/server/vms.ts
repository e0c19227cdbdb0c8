/** The server's VMs. All that is known of them is in the state directory: a server that starts anew serves them as before. */

import { randomBytes } from "node:crypto";
import type { PowerState, VmReference, Work } from "../backends/backend.js";
import { backendOf } from "../backends/index.js";
import { MicroVmError, messageOf, quoted, shown } from "../errors.js";
import { confirm } from "../host/confirm.js";
import { confirmSnapshot } from "../host/confirm-snapshot.js";
import { isVmName, vmPaths } from "../host/paths.js";
import type { VmRecord } from "../host/record.js";
import { readSnapshot } from "../host/snapshots.js";
import { noticeText } from "../notices.js";
import { descriptionsOf, type PortDescriptions } from "./answers.js";
import { makeVm, newName, ownerOf, planVm, type Workshop } from "./creation.js";
import type { GuestAgent } from "./guest-agent.js";
import { Listing } from "./listing.js";
import type { Metrics } from "./metrics.js";
import { type Recovery, recover } from "./recover.js";
import { Refusal, refusalOf } from "./refusal.js";
import { type Removal, removeAll } from "./remove-all.js";
import { snapshotIdOf, vmNameOf } from "./saved.js";
import { Turns } from "./turns.js";
import type { DryRun, StartVmRequest, Vm } from "./wire.js";

/** What is to be done with a VM, as PATCH names it. */
export type Change = "stopped" | "paused" | "resume";

const wanted: Readonly<Record<Change, PowerState>> = {
  stopped: "stopped",
  paused: "paused",
  resume: "running",
};

export class Vms {
  readonly #listing: Listing;
  readonly #creating = new Map<string, AbortController>();
  readonly #turns = new Turns();
  readonly #descriptions: PortDescriptions;

  /** @param work Its signal ends what is in hand when the server must stop. */
  constructor(
    readonly workshop: Workshop,
    readonly metrics: Metrics,
    readonly work: Work,
  ) {
    const { stateDirectory } = workshop;
    this.#descriptions = descriptionsOf(workshop.config);
    this.#listing = new Listing({
      stateDirectory,
      descriptions: this.#descriptions,
      isCreating: (vmName) => this.#creating.has(vmName),
    });
    metrics.watch(async () => (await this.#listing.all()).vms);
  }

  /**
   * Undoes and finishes what a server that was killed has left; to be called before the first request. A start takes its time: it goes on
   * beside the requests.
   */
  async recover(): Promise<Recovery> {
    const recovery = await recover(this.workshop.stateDirectory, this.work);
    for (const vmName of recovery.unfinished) void this.#finish(vmName);
    return recovery;
  }

  /** The answer to GET /v1/vms, in UTF-8: at most 250 ms old. */
  async listText(): Promise<Buffer> {
    return (await this.#listing.all()).text;
  }

  /** @throws Refusal 404 */
  async get(vmName: string): Promise<Vm> {
    const vm = isVmName(vmName) ? await this.#listing.one(vmName) : undefined;
    if (vm === undefined) throw unknown(vmName);
    return vm;
  }

  /** What a request would make. */
  async plan(request: StartVmRequest): Promise<DryRun> {
    const vmName = nameIn(request);
    const { boot } = await planVm(this.workshop, vmName, request, [], this.work.notice);
    return { vmName, cmdline: boot.cmdline, disks: [...boot.disks] };
  }

  /**
   * Makes a VM, and answers when its guest has proved its root.
   *
   * @throws Refusal 409 for a name that is in use or being made, and all that keeps the VM from being made.
   */
  async create(request: StartVmRequest): Promise<Vm> {
    const vmName = nameIn(request);
    if (this.#creating.has(vmName)) throw taken(vmName, "is being made by another request");
    const abort = new AbortController();
    this.#creating.set(vmName, abort);
    try {
      await this.#turns.take(vmName, () => this.#make(vmName, request, abort.signal));
    } finally {
      this.#creating.delete(vmName);
      this.#listing.invalidate(vmName);
    }
    return await this.get(vmName);
  }

  /**
   * Stops, pauses or resumes a VM; resuming one that is off starts it.
   *
   * @returns What was done, in words.
   */
  async change(vmName: string, change: Change): Promise<string> {
    this.#refuseCreating(vmName);
    return await this.#turn(vmName, async (record) => {
      const { status } = await this.get(vmName);
      // Of one that is unreachable, its hypervisor's own failure tells more.
      if (change === "paused" && !["RUNNING", "PAUSED", "UNREACHABLE"].includes(status)) {
        throw new Refusal(409, `${vmName} is ${status}: only a VM that runs can be paused`, "invalid-input");
      }
      await this.#update(record, wanted[change]);
      if (change !== "resume") return `${vmName} is ${change}`;
      return status === "STOPPED" ? `${vmName} was off and has been started` : `${vmName} is running`;
    });
  }

  /** Powers a VM off and removes it; one that is being made is undone. */
  async remove(vmName: string): Promise<void> {
    const creation = this.#creating.get(vmName);
    creation?.abort();
    try {
      await this.#turn(vmName, (record) => this.#remove(record));
    } catch (error) {
      const isUndone = creation !== undefined && error instanceof Refusal && error.statusCode === 404;
      if (!isUndone) throw error;
    }
  }

  /** Removes every VM of the server's that can be removed. */
  async removeAll(): Promise<Removal> {
    const { stateDirectory } = this.workshop;
    return await removeAll(stateDirectory, this.#creating.keys(), (vmName) => this.remove(vmName));
  }

  /** Waits for the end of all that is being done to VMs, also where no request waits for it. */
  async atRest(): Promise<void> {
    await this.#turns.over();
  }

  /**
   * Takes a snapshot of a VM, which runs on as it did.
   *
   * @param name What the caller calls it; made up when absent.
   * @returns The name under which it can be restored.
   */
  async snapshot(vmName: string, name: string | undefined): Promise<string> {
    this.#refuseCreating(vmName);
    return await this.#turn(vmName, async (record) => {
      const { stateDirectory, config } = this.workshop;
      const called = name === undefined || name === "" ? `${vmName}-${randomBytes(8).toString("hex")}` : name;
      const id = snapshotIdOf(vmName, called);
      if ((await readSnapshot(stateDirectory, id)) !== undefined) {
        throw new Refusal(409, `snapshotId: ${vmName} has a snapshot ${shown(called)} already`, "name-taken");
      }
      await backendOf(record.settings.backend).takeSnapshot({
        id,
        reference: this.#referenceOf(record),
        owner: ownerOf(vmName, config),
        ...this.work,
      });
      await confirmSnapshot(stateDirectory, id);
      return called;
    });
  }

  /**
   * Where the command server of a VM's guest answers.
   *
   * @throws Refusal 404 for a VM that is not there, 409 for one that is off or paused, or that this host cannot reach.
   */
  async agentOf(vmName: string): Promise<GuestAgent> {
    const { commandServerPort } = this.workshop.config;
    const { signal } = this.work;
    const { link, portForwards } = (await this.#record(vmName)).boot;
    const { status } = await this.get(vmName);
    if (status === "STOPPED" || status === "PAUSED") {
      throw new Refusal(
        409,
        `${vmName} is ${status}: its guest cannot be asked; resume it first`,
        "invalid-input",
      );
    }
    if (link.kind === "tap") return { vmName, address: link.guestAddress, port: commandServerPort, signal };
    const forward = portForwards.find(({ guestPort }) => guestPort === commandServerPort);
    if (forward !== undefined)
      return { vmName, address: forward.hostAddress, port: forward.hostPort, signal };
    throw new Refusal(
      409,
      `no port of this host leads to port ${commandServerPort} of ${vmName}, since it was made with another guestservices.cmdserver.port; make it anew`,
    );
  }

  /**
   * Absolute path of a VM's console log; the file may not be there yet.
   *
   * @throws Refusal 404
   */
  async consoleLogOf(vmName: string): Promise<string> {
    await this.#record(vmName);
    return vmPaths(this.workshop.stateDirectory, vmName).consoleLog;
  }

  async #make(vmName: string, request: StartVmRequest, aborted: AbortSignal): Promise<void> {
    const { stateDirectory } = this.workshop;
    if (isVmName(vmName) && (await this.#listing.record(vmName)) !== undefined) {
      throw taken(vmName, "exists already");
    }
    const signal = AbortSignal.any([aborted, this.work.signal]);
    const begun = performance.now();
    try {
      const { instance } = await makeVm(this.workshop, vmName, request, { ...this.work, signal });
      await confirm(stateDirectory, vmName, instance);
      this.metrics.booted((performance.now() - begun) / 1000);
    } catch (error) {
      this.metrics.failed(refusalOf(error).code ?? "internal-error");
      if (aborted.aborted && error instanceof MicroVmError && error.code === "interrupted") {
        throw new Refusal(409, `${vmName} was deleted while it was being made`, "interrupted");
      }
      throw error;
    }
  }

  async #finish(vmName: string): Promise<void> {
    const { notice } = this.work;
    try {
      await this.#turn(vmName, (record) => this.#update(record, record.settings.powerState));
      notice(noticeText("start-finished", { vm: vmName }));
    } catch (error) {
      notice(noticeText("start-unfinished", { vm: vmName, finding: messageOf(error) }));
    }
  }

  async #update(record: VmRecord, powerState: PowerState): Promise<void> {
    const { boot, settings } = record;
    const reference = this.#referenceOf(record);
    await backendOf(settings.backend).update({
      reference,
      boot,
      settings: { ...settings, powerState },
      ...this.work,
    });
  }

  async #remove(record: VmRecord): Promise<void> {
    await backendOf(record.settings.backend).remove({
      reference: this.#referenceOf(record),
      shutdownTimeoutSeconds: record.settings.shutdownTimeoutSeconds,
      ...this.work,
    });
  }

  /** Works on a VM that is there when all that came before is done. */
  async #turn<Result>(vmName: string, work: (record: VmRecord) => Promise<Result>): Promise<Result> {
    try {
      return await this.#turns.take(vmName, async () => await work(await this.#record(vmName)));
    } finally {
      this.#listing.invalidate(vmName);
    }
  }

  #refuseCreating(vmName: string): void {
    if (this.#creating.has(vmName))
      throw new Refusal(409, `${vmName} is still being made`, "create-in-progress");
  }

  async #record(vmName: string): Promise<VmRecord> {
    const record = isVmName(vmName) ? await this.#listing.record(vmName) : undefined;
    if (record === undefined) throw unknown(vmName);
    return record;
  }

  #referenceOf({ vmName, instance }: VmRecord): VmReference {
    return { vmName, instance, stateDirectory: this.workshop.stateDirectory };
  }
}

function nameIn({ vmName, snapshotId }: StartVmRequest): string {
  if (vmName !== undefined && vmName !== "") return vmName;
  return vmNameOf(snapshotId ?? "") ?? newName();
}

function unknown(vmName: string): Refusal {
  return new Refusal(404, `there is no VM ${quoted(vmName)}`);
}

function taken(vmName: string, why: string): Refusal {
  return new Refusal(
    409,
    `the VM ${vmName} ${why}; choose another vmName, or delete that VM first`,
    "name-taken",
  );
}
