/** What every local back end does, on a real hypervisor. */

import { afterAll, beforeAll, beforeEach, describe, it } from "vitest";

import type { Backend, LocalBackend } from "../../../provider/backends/backend.js";
import { testFailures } from "./contract-failures.js";
import { testKinds } from "./contract-kinds.js";
import { testLife } from "./contract-life.js";
import { LocalLab } from "./local-lab.js";

/** Where the contract is run: with real guests, or where none runs, with guests that only say what one would. */
export type ContractPlace =
  | {
      readonly backend: Backend;
      /** Absolute path of a kernel image. */
      readonly kernel: string;
      /** Whether only what a kernel makes a difference to is run: the life of a VM, and boots that fail. */
      readonly short?: boolean;
    }
  | { readonly backend: Backend; readonly scripted: LocalBackend; readonly theirs?: TheirVmm }
  /** Scripted guests of a REST server's. */
  | "rest";

/** A VMM that the VMs are put into, which is its owner's. */
export interface TheirVmm {
  readonly network: { readonly tap: string; readonly subnet: string };
  /** Waits until it takes a VM: its owner starts it again when it has ended. */
  readonly untilUp: () => Promise<void>;
}

/** Defines a test that needs a guest which runs Linux; skipped by name where there is none. */
export type LinuxTest = (title: string, test: () => Promise<void>) => void;

/** Defines a test of what is told to a back end directly; skipped by name where REST has no such thing, with the reason. */
export type DirectTest = (title: string, whyNotRest: string, test: () => Promise<void>) => void;

/** How tests are defined where the contract is run. */
export interface ContractTests {
  readonly onLinux: LinuxTest;
  /** Needs a VMM that is not somebody else's. */
  readonly onOwn: LinuxTest;
  readonly direct: DirectTest;
  /** Needs both. */
  readonly ownDirect: DirectTest;
}

const skipped: LinuxTest = (title, test) => it.skip(`${title} (needs a guest that runs Linux)`, test);

const skippedOfOwn: LinuxTest = (title, test) => it.skip(`${title} (needs a VMM of our own)`, test);

const skippedOfDirect: DirectTest = (title, whyNotRest) =>
  it.skip(`${title} (not through REST: ${whyNotRest})`, () => undefined);

async function openLab(place: ContractPlace): Promise<LocalLab> {
  if (place === "rest") return await LocalLab.openServed();
  const { backend } = place;
  if ("kernel" in place) return await LocalLab.open(backend, place.kernel);
  return await LocalLab.openScripted(backend, place.scripted, place.theirs?.network);
}

/** Defines the tests of the contract. */
export function testLocalBackend(title: string, place: ContractPlace): void {
  describe(title, () => {
    let lab: LocalLab;
    const labOf = (): LocalLab => lab;
    const theirs = place !== "rest" && "theirs" in place ? place.theirs : undefined;
    const onLinux: LinuxTest = place !== "rest" && "kernel" in place ? it : skipped;
    const onOwn: LinuxTest = theirs === undefined ? it : skippedOfOwn;
    const isRest = place === "rest";
    const direct: DirectTest = isRest ? skippedOfDirect : (name, _why, test) => it(name, test);
    const ownDirect: DirectTest = isRest ? skippedOfDirect : (name, _why, test) => onOwn(name, test);
    const tests: ContractTests = { onLinux, onOwn, direct, ownDirect };
    beforeAll(async () => {
      lab = await openLab(place);
    });
    afterAll(async () => await lab.close());
    beforeEach(async () => await theirs?.untilUp());

    testLife(labOf, tests);
    testFailures(labOf, tests);
    const isShort = place !== "rest" && "kernel" in place && place.short === true;
    if (!isShort) testKinds(labOf, tests);
  });
}
