/** What the server has: records of its state directory, and what is found of each VM. */

import type { VmOutputs } from "../backends/backend.js";
import { backendOf } from "../backends/index.js";
import { MicroVmError } from "../errors.js";
import { readRecord, type VmRecord } from "../host/record.js";
import { forEachAtOnce } from "./at-once.js";
import { type PortDescriptions, type ServedState, vmOf } from "./answers.js";
import { marksOf, namesIn } from "./marks.js";
import { ORGANIZATION } from "./recover.js";
import type { Vm } from "./wire.js";

/**
 * How old the list may be, in milliseconds: by then it shows that a VM was made, changed or removed by any process, has died, or that
 * its kernel has ended.
 */
export const FRESH_MILLISECONDS = 250;
/** When it is taken anew while the old one still serves, so that nobody waits. */
const RENEW_MILLISECONDS = 125;

/**
 * How long the word of a hypervisor counts in the list while nothing else tells of a change, in milliseconds. It is asked again, with
 * nobody waiting, between `least` and `most`, other for each VM, so that they are not all asked at once; a word of `last` is too old to
 * be shown. Only somebody who talks to the hypervisor behind our back can change a VM so.
 */
const WORD_MILLISECONDS = { least: 2500, most: 5000, last: 10_000 };

/** How many hypervisors are asked at once. */
const ASKED_AT_ONCE = 16;

/** What of a VM the listing does not see by itself. */
export interface ListingContext {
  /** Absolute path. */
  readonly stateDirectory: string;
  readonly descriptions: PortDescriptions;
  /** Whether a create of that name is in hand. */
  readonly isCreating: (vmName: string) => boolean;
}

/** The list as it was at one time. */
interface List {
  readonly vms: readonly Vm[];
  /** The answer to GET /v1/vms, in UTF-8. */
  readonly text: Buffer;
}

/** A list that is being taken since a time. */
interface Taking {
  readonly list: Promise<List>;
  readonly at: number;
}

/** A VM as it was when its hypervisor was asked. */
interface Look {
  readonly record: VmRecord | undefined;
  readonly vm: Vm | undefined;
  readonly marks: string;
  /** When the hypervisor is to be asked again, and when this is too old. */
  readonly askAt: number;
  readonly goodUntil: number;
}

export class Listing {
  /** The list, and when the taking of it began. */
  #current: { readonly list: List; readonly at: number } | undefined;
  #taking: Taking | undefined;
  readonly #looks = new Map<string, Look>();
  /** How often something was done to a VM: what was seen before, and is told after, is not kept. */
  #changes = 0;
  /** VMs whose hypervisors are asked with nobody waiting. */
  readonly #asked = new Set<string>();

  constructor(readonly context: ListingContext) {}

  /** All VMs by name, none older than {@link FRESH_MILLISECONDS}. */
  async all(): Promise<List> {
    for (;;) {
      const now = performance.now();
      const current = this.#current;
      const age = current === undefined ? Infinity : now - current.at;
      if (current !== undefined && age < RENEW_MILLISECONDS) return current.list;
      const taking = (this.#taking ??= this.#begin(now));
      if (current !== undefined && age < FRESH_MILLISECONDS) return current.list;
      const list = await taking.list;
      // Of one that took long before this caller came, it waits for the next.
      if (now - taking.at < FRESH_MILLISECONDS) return list;
    }
  }

  /** One VM as it is now; undefined when there is none of the server's. */
  async one(vmName: string): Promise<Vm | undefined> {
    const record = await this.record(vmName);
    return record === undefined ? undefined : await this.#ask(record);
  }

  /** The record of one of the server's VMs. */
  async record(vmName: string): Promise<VmRecord | undefined> {
    const record = await readRecord(this.context.stateDirectory, vmName);
    return record?.owner.organization === ORGANIZATION ? record : undefined;
  }

  /** Something was done to a VM: the next answer looks again. */
  invalidate(vmName: string): void {
    this.#changes += 1;
    this.#looks.delete(vmName);
    this.#current = undefined;
    this.#taking = undefined;
  }

  #begin(at: number): Taking {
    const taking = { list: this.#take(), at };
    const over = (list?: List): void => {
      if (this.#taking !== taking) return; // something was done meanwhile
      this.#taking = undefined;
      if (list !== undefined) this.#current = { list, at };
    };
    // A failure is told to those who wait for it.
    taking.list.then(over, () => over());
    return taking;
  }

  async #take(): Promise<List> {
    const names = namesIn(this.context.stateDirectory);
    const known = new Set(names);
    for (const vmName of this.#looks.keys()) if (!known.has(vmName)) this.#looks.delete(vmName);
    const found = new Map<string, Vm | undefined>();
    const toAsk = names.filter((vmName) => {
      const look = this.#looks.get(vmName);
      const isGood = look !== undefined && this.#isGood(vmName, look);
      if (isGood) found.set(vmName, look.vm);
      return !isGood;
    });
    await forEachAtOnce(
      toAsk,
      ASKED_AT_ONCE,
      async (vmName) => void found.set(vmName, await this.#look(vmName)),
    );
    this.#askAgain(names);
    const vms = names.map((vmName) => found.get(vmName)).filter((vm) => vm !== undefined);
    return { vms, text: Buffer.from(JSON.stringify({ vms })) };
  }

  #isGood(vmName: string, look: Look): boolean {
    if (this.context.isCreating(vmName) || performance.now() >= look.goodUntil) return false;
    return look.marks === marksOf(this.context.stateDirectory, vmName, look.record);
  }

  /** Those whose last word is not new any more; the next list has what they say. */
  #askAgain(names: readonly string[]): void {
    const now = performance.now();
    const due = names.filter((vmName) => {
      const look = this.#looks.get(vmName);
      return look !== undefined && now >= look.askAt && !this.#asked.has(vmName);
    });
    for (const vmName of due) this.#asked.add(vmName);
    const asked = forEachAtOnce(due, ASKED_AT_ONCE, async (vmName) => {
      try {
        await this.#look(vmName);
      } finally {
        this.#asked.delete(vmName);
      }
    });
    // Whoever waits for the next list is told of it.
    asked.catch(() => undefined);
  }

  async #look(vmName: string): Promise<Vm | undefined> {
    const changes = this.#changes;
    const read = await this.#readable(vmName);
    const record = read === "unreadable" ? undefined : read;
    // Before the hypervisor is asked: what happens meanwhile is seen the next time.
    const marks = marksOf(this.context.stateDirectory, vmName, record);
    const vm = read === "unreadable" ? unreachable(vmName) : record && (await this.#ask(record));
    const { least, most, last } = WORD_MILLISECONDS;
    const now = performance.now();
    const askAt = now + least + Math.random() * (most - least);
    const isKept = changes === this.#changes && !this.context.isCreating(vmName);
    if (isKept) this.#looks.set(vmName, { record, vm, marks, askAt, goodUntil: now + last });
    return vm;
  }

  async #readable(vmName: string): Promise<VmRecord | "unreadable" | undefined> {
    try {
      return await this.record(vmName);
    } catch (error) {
      if (error instanceof MicroVmError && error.code === "record-unreadable") return "unreadable";
      throw error;
    }
  }

  /** What is found of a VM; undefined when it has gone meanwhile. */
  async #ask(record: VmRecord): Promise<Vm | undefined> {
    const { descriptions, isCreating, stateDirectory } = this.context;
    const { vmName, instance, settings } = record;
    const told = (state: ServedState, evidence: VmOutputs["rootEvidence"] = "none"): Vm =>
      vmOf(record, state, evidence, descriptions);
    if (isCreating(vmName)) return told("creating");
    if (record.phase === "removing") return told("removing");
    try {
      const found = await backendOf(settings.backend).observe({ vmName, instance, stateDirectory });
      return found.state === "gone" ? undefined : told(found.state, found.rootEvidence);
    } catch (error) {
      if (!(error instanceof MicroVmError)) throw error;
      if (error.code === "record-unreadable" || error.code === "vmm-failed") return told("unreachable");
      throw error;
    }
  }
}

/** A record that cannot be read does not tell whose the VM is, nor that there is none: its guest may run on. */
function unreachable(vmName: string): Vm {
  return { vmName, status: "UNREACHABLE" };
}
