/** The steps at which an operation is killed: each recorded phase, and what can be seen of the gaps between them. */

import { existsSync, statSync } from "node:fs";

import type { ProviderChild } from "./provider-child.js";
import type { World } from "./world.js";

/** A moment of an operation. */
export interface Step {
  readonly name: string;
  /** Whether the operation has come so far. A step that has passed unseen counts as soon as the operation is over. */
  readonly isReached: (world: World, child: ProviderChild) => boolean;
  /** Longest random delay after it, in milliseconds. */
  readonly spread: number;
  /** Whether a VMM can be killed there instead. */
  readonly hasVmm?: true;
}

const step = (name: string, spread: number, isReached: Step["isReached"], hasVmm?: true): Step => ({
  name,
  spread,
  isReached,
  ...(hasVmm === undefined ? {} : { hasVmm }),
});

const PHASES = ["claimed", "prepared", "spawned", "started", "ready"];

function hasPhase(world: World, wanted: string): boolean {
  const phase = /"phase": "(\w+)"/.exec(world.record())?.[1];
  return phase === wanted || PHASES.indexOf(phase ?? "") > PHASES.indexOf(wanted);
}

const begin = step("begin", 40, (_world, child) => child.hasSaid("begin"));
const inPhase = (phase: string, spread: number, hasVmm?: true) =>
  step(phase, spread, (world) => hasPhase(world, phase), hasVmm);

/** A create without a start. */
export const preparing: readonly Step[] = [
  begin,
  step("name prepared", 5, (world) => world.entries().some((name) => name.startsWith(".new-"))),
  inPhase("claimed", 10),
  step("lease", 10, (world) => world.leases().length > 0),
  step("kernel copied", 10, (world) => existsSync(world.vmPath("kernel"))),
  step("disk made", 10, (world) => existsSync(world.vmPath("stateful.img"))),
  inPhase("prepared", 10),
];

const booting: readonly Step[] = [
  step("process", 100, (world) => world.processes().length > 0, true),
  inPhase("spawned", 20, true),
  inPhase("started", 2000, true),
  step("root mounted", 600, (world) => world.console().includes("Run /sbin/init"), true),
  step("guest speaks", 600, (world) => world.console().includes("guest: I am"), true),
];

/** A create that starts the guest. */
export const creating: readonly Step[] = [...preparing, ...booting];

/** An update that starts the guest. */
export const starting: readonly Step[] = [begin, ...booting];

/** An update that powers the guest off. */
export const stopping: readonly Step[] = [
  begin,
  step("guest goes off", 300, (world) => world.console().includes("guest: goes off")),
  step("process ended", 20, (world) => world.processes().length === 0),
  step("end recorded", 20, (world) => !world.record().includes('"vmm":')),
];

/** An update that changes the port forwards, from `before` ports to others. */
export const forwarding = (before: number): readonly Step[] => [
  begin,
  step("lease", 20, (world) => world.leases().length !== before),
  step("forward recorded", 20, (world) => /"hostPort"/g.test(world.record())),
];

/** An update that grows the disk to this size. */
export const growing = (bytes: number): readonly Step[] => [
  begin,
  step(
    "disk grown",
    20,
    (world) =>
      existsSync(world.vmPath("stateful.img")) && statSync(world.vmPath("stateful.img")).size >= bytes,
  ),
];

/** An update that only pauses or resumes. */
export const switching: readonly Step[] = [{ ...begin, spread: 120 }];

/** A delete. */
export const deleting: readonly Step[] = [
  begin,
  step(
    "removing",
    500,
    (world) => world.record().includes('"removing"') || !existsSync(world.vmPath("vm.json")),
  ),
  step("guest goes off", 300, (world) => /guest: goes off/.test(world.console())),
  step("process ended", 30, (world) => world.processes().length === 0),
  step("set aside", 5, (world) => !existsSync(world.vmPath("vm.json"))),
];

/** A delete of a VM that does not run. */
export const deletingStopped = deleting.filter(({ name }) => !/guest|process/.test(name));

/** A replacement: a delete, then a create. */
export const replacing: readonly Step[] = [
  ...deleting,
  step("deleted", 200, (_world, child) => child.hasSaid("deleted")),
  inPhaseAfterDelete("claimed", 20),
  inPhaseAfterDelete("started", 2000),
];

function inPhaseAfterDelete(phase: string, spread: number): Step {
  return step(
    `new one ${phase}`,
    spread,
    (world, child) => child.hasSaid("deleted") && hasPhase(world, phase),
  );
}
