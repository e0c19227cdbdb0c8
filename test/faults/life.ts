/** One VM's life, in which create, a change and the delete are each killed once, and done again as the next up would. */

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { messageOf } from "../../provider/errors.js";
import { endProcess } from "../../provider/host/process.js";
import type { Values } from "../../provider/plan/fields.js";
import { freePort } from "../lab/nfs.js";
import { type Ended, ProviderChild } from "./provider-child.js";
import type { Order } from "./provider-process.js";
import type { Kill, Report } from "./report.js";
import { Stack } from "./stack.js";
import {
  creating,
  deleting,
  deletingStopped,
  forwarding,
  growing,
  preparing,
  replacing,
  type Step,
  starting,
  stopping,
  switching,
} from "./steps.js";
import type { World } from "./world.js";

const STEP_SECONDS = 150;
const POLL_MILLISECONDS = 3;
const SECOND_SPREAD_MILLISECONDS = 1500;

/** What a life needs beside its world. */
export interface Course {
  readonly seed: number;
  readonly life: number;
  /** Whether a guest runs in it. */
  readonly hasGuest: boolean;
  readonly random: () => number;
  readonly report: Report;
  /** The step of an operation of which it is the turn. */
  readonly turn: (operation: string, steps: readonly Step[]) => Step;
}

const CHANGES = ["stop", "start", "repair", "forward", "grow", "pause", "replace"] as const;

export class Life {
  readonly #stack = new Stack();
  #program: Values = {};
  #child: ProviderChild;

  constructor(
    readonly world: World,
    readonly course: Course,
  ) {
    this.#child = this.#spare();
  }

  /** Lives it. @returns What was wrong; empty when nothing was. */
  async live(): Promise<string[]> {
    const { hasGuest, random } = this.course;
    try {
      await this.#set({ powerState: hasGuest ? (random() < 0.15 ? "paused" : "running") : "stopped" });
      await this.#set({ portForwards: [await this.#forward()] });
      const kind = hasGuest ? "" : " of one that never started";
      const faults = await this.#killed(`create${kind}`, hasGuest ? creating : preparing);
      faults.push(...(await this.#change(this.#nextChange())));
      faults.push(...(await this.#killed(`delete${kind}`, hasGuest ? deleting : deletingStopped)));
      return faults;
    } finally {
      await this.#child.kill();
    }
  }

  #nextChange(): (typeof CHANGES)[number] {
    const { random, hasGuest } = this.course;
    const changes = hasGuest ? CHANGES : (["forward", "grow"] as const);
    return changes[Math.floor(random() * changes.length)] ?? "forward";
  }

  async #change(change: (typeof CHANGES)[number]): Promise<string[]> {
    const forwards = this.#program["portForwards"] as readonly unknown[];
    switch (change) {
      case "stop":
        await this.#set({ powerState: "stopped" });
        return await this.#killed("stop", stopping);
      case "start":
        await this.#set({ powerState: "stopped", statefulDiskMiB: 48 });
        await this.#stack.up(this.#program);
        await this.#set({ powerState: "running" });
        return await this.#killed("start with a grown disk", starting);
      case "repair":
        for (const vmm of this.world.processes()) await endProcess(vmm, 0);
        return await this.#killed("repair", starting);
      case "forward":
        await this.#set({ portForwards: [await this.#forward(), await this.#forward()] });
        return await this.#killed("forward", forwarding(forwards.length));
      case "grow":
        await this.#set({ statefulDiskMiB: 48 });
        return await this.#killed("grow", growing(48 * 1024 * 1024));
      case "pause":
        await this.#set({ powerState: this.#program["powerState"] === "paused" ? "running" : "paused" });
        return await this.#killed("pause", switching);
      case "replace":
        await this.#set({ kernelArgs: ["panic=-1", "nowatchdog"] });
        return await this.#killed("replace", replacing);
      default:
        return change satisfies never;
    }
  }

  /** Begins the operation in a provider process, kills at a step, does it again as the next up, and looks at what is there. */
  async #killed(operation: string, steps: readonly Step[]): Promise<string[]> {
    const { world, course } = this;
    const order = await this.#order(operation);
    if (order === undefined) throw new Error(`${operation}: the plan is to do nothing`);
    const step = course.turn(operation, steps);
    const victim = step.hasVmm === true && course.random() < 0.25 ? "vmm" : "provider";
    const wait = Math.round(course.random() * step.spread);
    const child = this.#child;
    await child.order(order);
    const deadline = performance.now() + STEP_SECONDS * 1000;
    while (!step.isReached(world, child) && !child.isOver && performance.now() < deadline)
      await delay(POLL_MILLISECONDS);
    await delay(wait);
    const ended = await this.#strike(child, victim);
    const begun = performance.now();
    this.#child = this.#spare();
    world.noteClosedFiles();
    const after = {
      phase: /"phase": "(\w+)"/.exec(world.record())?.[1] ?? "none",
      processes: world.processes().length,
      leases: world.leases().length,
      entries: world.entries(),
    };
    const faults = await this.#wentWrong(operation, ended);
    await this.#write(child, ended);
    const again = course.random() < 0.25 ? await this.#killedAgain(operation) : undefined;
    const next = await this.#again(operation, faults);
    const { seed, life } = course;
    const kill: Kill = {
      seed,
      life,
      operation,
      step: step.name,
      delay: wait,
      victim,
      how: ended.how,
      after,
      ...(again === undefined ? {} : { again }),
      next,
      faults,
      milliseconds: Math.round(performance.now() - begun),
    };
    course.report.add(kill);
    await rm(join(world.stateDirectory, ".lost"), { recursive: true, force: true });
    return faults.map((fault) => `${operation} killed ${wait} ms after "${step.name}" (${victim}): ${fault}`);
  }

  /** What an up (or destroy) would ask for now; undefined when there is nothing to do. */
  async #order(operation: string): Promise<Order | undefined> {
    const { resource } = this.#stack;
    if (!operation.startsWith("delete")) return await this.#stack.plan(this.#program);
    return resource === undefined ? undefined : { what: "delete", resource };
  }

  /** The next up is killed as well. @returns How long after its begin, in milliseconds; undefined when it had nothing to do. */
  async #killedAgain(operation: string): Promise<number | undefined> {
    const order = await this.#order(operation);
    if (order === undefined) return undefined;
    const child = this.#child;
    const wait = Math.round(this.course.random() ** 2 * SECOND_SPREAD_MILLISECONDS);
    await child.order(order);
    while (!child.hasSaid("begin") && !child.isOver) await delay(POLL_MILLISECONDS);
    await delay(wait);
    const ended = await child.kill();
    this.#child = this.#spare();
    this.world.noteClosedFiles();
    await this.#write(child, ended);
    return wait;
  }

  async #strike(child: ProviderChild, victim: Kill["victim"]): Promise<Ended> {
    if (victim === "provider") return await child.kill();
    for (const vmm of this.world.processes()) await endProcess(vmm, 0);
    return await child.untilOver(STEP_SECONDS);
  }

  /** A create that fails by itself leaves nothing at once. */
  async #wentWrong(operation: string, ended: Ended): Promise<string[]> {
    if (!operation.startsWith("create") || ended.how !== "failed") return [];
    return await this.world.faults({ resource: undefined, state: "gone", ports: [] });
  }

  /** What the engine has written of it: it may have ended before it could write even what was done. */
  async #write(child: ProviderChild, ended: Ended): Promise<void> {
    if (child.hasSaid("deleted")) this.#stack.resource = undefined;
    if (ended.how !== "done" || this.course.random() < 0.5) return;
    if (ended.resource === undefined) this.#stack.resource = undefined;
    else await this.#stack.record(ended.resource);
  }

  /** The next up (or destroy), and everything that is to be true after it. */
  async #again(operation: string, faults: string[]): Promise<string> {
    const { world } = this;
    try {
      if (operation.startsWith("delete")) {
        // A person may also go on with an up: what the delete has left of the VM is replaced.
        const isWanted = this.#stack.resource !== undefined && this.course.random() < 0.3;
        const then = isWanted ? `${await this.#stack.up(this.#program)}, destroy` : "destroy";
        await this.#stack.destroy();
        faults.push(...(await world.faults({ resource: undefined, state: "gone", ports: [] })));
        return then;
      }
      const then = await this.#stack.up(this.#program);
      const state = this.#program["powerState"] as "running" | "paused" | "stopped";
      const forwards = this.#program["portForwards"] as readonly { hostPort: number }[];
      const ports = forwards.map(({ hostPort }) => hostPort).toSorted((a, b) => a - b);
      faults.push(...(await world.faults({ resource: this.#stack.resource, state, ports })));
      const seen = await this.#stack.refresh();
      if (seen?.["state"] !== state) faults.push(`is ${String(seen?.["state"])}, expected ${state}`);
      if (state !== "stopped" && seen?.["rootEvidence"] !== "proved") faults.push("its root is not proved");
      const more = await this.#stack.plan(this.#program);
      if (more !== undefined) faults.push(`the plan after it is not empty: ${more.what}`);
      return then;
    } catch (error) {
      faults.push(`the next up failed: ${messageOf(error)}`);
      return "failed";
    }
  }

  async #set(changes: Values): Promise<void> {
    this.#program = this.world.program({ ...this.#program, ...changes });
  }

  async #forward(): Promise<Values> {
    return { hostPort: await freePort(), guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" };
  }

  #spare(): ProviderChild {
    return new ProviderChild({ ...process.env, ...this.world.env });
  }
}
