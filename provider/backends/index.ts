/** The back ends, by the `type` of the `backend` input. */

import type {
  AnyBackend,
  ArrakisBackend,
  Backend,
  BackendOptions,
  LocalBackend,
  OnServer,
} from "./backend.js";
import { arrakis } from "./arrakis/arrakis.js";
import { cloudHypervisor } from "./cloud-hypervisor/cloud-hypervisor.js";
import { localBackend } from "./local/local.js";
import { qemu } from "./qemu/qemu.js";

const localBackends: Readonly<Record<LocalBackend["type"], Backend>> = {
  qemu: localBackend(qemu),
  "cloud-hypervisor": localBackend(cloudHypervisor),
};

/** The back end of a `backend` input. */
export function backendOf(options: LocalBackend): Backend;
export function backendOf(options: ArrakisBackend): Backend<OnServer>;
export function backendOf(options: BackendOptions): AnyBackend;
export function backendOf(options: BackendOptions): AnyBackend {
  return options.type === "arrakis" ? arrakis(options) : localBackends[options.type];
}
