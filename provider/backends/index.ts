/** The back ends, by the `type` of the `backend` input. */

import type { Backend, BackendOptions } from "./backend.js";
import { cloudHypervisor } from "./cloud-hypervisor/cloud-hypervisor.js";
import { localBackend } from "./local/local.js";
import { qemu } from "./qemu/qemu.js";

const backends: Readonly<Record<BackendOptions["type"], Backend>> = {
  qemu: localBackend(qemu),
  "cloud-hypervisor": localBackend(cloudHypervisor),
};

/** The back end of a type. */
export function backendOf(type: BackendOptions["type"]): Backend {
  return backends[type];
}
