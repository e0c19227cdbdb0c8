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
  | { readonly backend: Backend; readonly scripted: LocalBackend; readonly theirs?: TheirVmm };

/** A VMM that the VMs are put into, which is its owner's. */
export interface TheirVmm {
  readonly network: { readonly tap: string; readonly subnet: string };
  /** Waits until it takes a VM: its owner starts it again when it has ended. */
  readonly untilUp: () => Promise<void>;
}

/** Defines a test that needs a guest which runs Linux; skipped by name where there is none. */
export type LinuxTest = (title: string, test: () => Promise<void>) => void;

const skipped: LinuxTest = (title, test) => it.skip(`${title} (needs a guest that runs Linux)`, test);

const skippedOfOwn: LinuxTest = (title, test) => it.skip(`${title} (needs a VMM of our own)`, test);

/** Defines the tests of the contract. */
export function testLocalBackend(title: string, place: ContractPlace): void {
  describe(title, () => {
    let lab: LocalLab;
    const labOf = (): LocalLab => lab;
    const { backend } = place;
    const theirs = "scripted" in place ? place.theirs : undefined;
    const onLinux: LinuxTest = "scripted" in place ? skipped : it;
    const onOwn: LinuxTest = theirs === undefined ? it : skippedOfOwn;
    beforeAll(async () => {
      lab =
        "scripted" in place
          ? await LocalLab.openScripted(backend, place.scripted, theirs?.network)
          : await LocalLab.open(backend, place.kernel);
    });
    afterAll(async () => await lab.close());
    beforeEach(async () => await theirs?.untilUp());

    testLife(labOf, onLinux, onOwn);
    testFailures(labOf, onLinux, onOwn);
    if ("scripted" in place || place.short !== true) testKinds(labOf, onLinux);
  });
}
