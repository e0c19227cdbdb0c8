/** A back end that keeps its VMs on this host, in a state directory. */

import type { Backend } from "../backend.js";
import { createVm } from "./create.js";
import { observeVm } from "./observe.js";
import { removeVm } from "./remove.js";
import { updateVm } from "./update.js";
import type { Vmm } from "./vmm.js";

/** The back end that runs its VMs by this hypervisor. */
export function localBackend(vmm: Vmm): Backend {
  return {
    observe: (reference) => observeVm(vmm, reference),
    create: (request) => createVm(vmm, request),
    update: (request) => updateVm(vmm, request),
    remove: (request) => removeVm(vmm, request),
  };
}
