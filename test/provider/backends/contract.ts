/** What every local back end does, on a real hypervisor with real guests. */

import { afterAll, beforeAll, describe } from "vitest";

import type { Backend } from "../../../provider/backends/backend.js";
import { testFailures } from "./contract-failures.js";
import { testKinds } from "./contract-kinds.js";
import { testLife } from "./contract-life.js";
import { LocalLab } from "./local-lab.js";

/** Where the contract is run. */
export interface ContractPlace {
  readonly backend: Backend;
  /** Absolute path of a kernel image. */
  readonly kernel: string;
  /** Whether only what a kernel makes a difference to is run: the life of a VM, and boots that fail. */
  readonly short?: boolean;
}

/** Defines the tests of the contract. */
export function testLocalBackend(title: string, { backend, kernel, short = false }: ContractPlace): void {
  describe(title, () => {
    let lab: LocalLab;
    beforeAll(async () => {
      lab = await LocalLab.open(backend, kernel);
    });
    afterAll(async () => await lab.close());

    testLife(() => lab);
    testFailures(() => lab);
    if (!short) testKinds(() => lab);
  });
}
