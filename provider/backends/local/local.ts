/** A back end that keeps its VMs on this host, in a state directory. */

import type { Backend } from "../backend.js";
import { createVm } from "./create.js";
import { observeVm } from "./observe.js";
import { removeVm } from "./remove.js";
import { takeSnapshot } from "./snapshot.js";
import { updateVm } from "./update.js";
import type { Vmm } from "./vmm.js";
import { type Prover, untilProved } from "./watch.js";

/**
 * The back end that runs its VMs by this hypervisor.
 *
 * @param prove Waits for the proof of a guest; by default {@link untilProved}.
 */
export function localBackend(vmm: Vmm, prove: Prover = untilProved): Backend {
  return {
    observe: (reference) => observeVm(vmm, reference),
    create: (request) => createVm(vmm, prove, request),
    update: (request) => updateVm(vmm, prove, request),
    remove: (request) => removeVm(vmm, request),
    takeSnapshot: (request) => takeSnapshot(vmm, request),
  };
}
