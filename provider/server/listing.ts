/** What the server has: records of its state directory and what is found of each VM, looked at again after a short time. */

import { backendOf } from "../backends/index.js";
import { MicroVmError } from "../errors.js";
import { listRecords, readRecord, type VmRecord } from "../host/record.js";
import { type PortDescriptions, type ServedState, vmOf } from "./answers.js";
import { ORGANIZATION } from "./recover.js";
import type { Vm } from "./wire.js";

/** How old an answer to the list may be, in milliseconds: a VM that has died shows so by then. */
export const FRESH_MILLISECONDS = 250;

/** What of a VM the listing does not see by itself. */
export interface ListingContext {
  /** Absolute path. */
  readonly stateDirectory: string;
  readonly descriptions: PortDescriptions;
  /** Whether a create of that name is in hand. */
  readonly isCreating: (vmName: string) => boolean;
}

/** A list as it was at one time. */
interface Snapshot {
  readonly vms: readonly Vm[];
  /** The answer to GET /v1/vms. */
  readonly text: string;
}

export class Listing {
  #current: { readonly taken: Promise<Snapshot>; readonly at: number } | undefined;

  constructor(readonly context: ListingContext) {}

  /** All VMs by name, none older than {@link FRESH_MILLISECONDS}. */
  async all(): Promise<Snapshot> {
    const now = performance.now();
    if (this.#current === undefined || now - this.#current.at >= FRESH_MILLISECONDS) {
      const taken = this.#take();
      this.#current = { taken, at: now };
      // A failure is told to those who wait for it, and not kept.
      taken.catch(() => this.invalidate());
    }
    return await this.#current.taken;
  }

  /** One VM as it is now; undefined when there is none of the server's. */
  async one(vmName: string): Promise<Vm | undefined> {
    const record = await this.record(vmName);
    return record === undefined ? undefined : await this.#look(record);
  }

  /** The record of one of the server's VMs. */
  async record(vmName: string): Promise<VmRecord | undefined> {
    const record = await readRecord(this.context.stateDirectory, vmName);
    return record?.owner.organization === ORGANIZATION ? record : undefined;
  }

  /** Something was done: the next answer looks again. */
  invalidate(): void {
    this.#current = undefined;
  }

  async #take(): Promise<Snapshot> {
    const listed = await listRecords(this.context.stateDirectory);
    // A record that cannot be read says nothing of whose it is; the server's start tells of it.
    const records = listed.flatMap((found) => ("record" in found ? [found.record] : []));
    const own = records.filter(({ owner }) => owner.organization === ORGANIZATION);
    const vms = (await Promise.all(own.map((record) => this.#look(record)))).filter((vm) => vm !== undefined);
    return { vms, text: JSON.stringify({ vms }) };
  }

  /** What is found of a VM; undefined when it has gone meanwhile. */
  async #look(record: VmRecord): Promise<Vm | undefined> {
    const { descriptions, isCreating, stateDirectory } = this.context;
    const { vmName, instance, settings } = record;
    const told = (state: ServedState, evidence: "proved" | "restored" | "none" = "none"): Vm =>
      vmOf(record, state, evidence, descriptions);
    if (isCreating(vmName)) return told("creating");
    if (record.phase === "removing") return told("removing");
    try {
      const found = await backendOf(settings.backend).observe({ vmName, instance, stateDirectory });
      return found.state === "gone" ? undefined : told(found.state, found.rootEvidence);
    } catch (error) {
      if (!(error instanceof MicroVmError)) throw error;
      if (error.code === "record-unreadable") return undefined; // as in the list
      if (error.code === "vmm-failed") return told("unreachable");
      throw error;
    }
  }
}
