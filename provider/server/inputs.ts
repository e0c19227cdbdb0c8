/** From a request to the inputs of a VM: the request, then config.yaml, then the default of each input. */

import type { LocalBackend } from "../backends/backend.js";
import type { PortForward } from "../boot/boot.js";
import type { Values } from "../plan/fields.js";
import type { ServerConfig } from "./server-config.js";
import type { StartVmRequest } from "./wire.js";

/** What a VM is made from beside the request. */
export interface InputContext {
  readonly config: Pick<ServerConfig, "boot" | "memoryMiB" | "network" | "readyConsole">;
  readonly backend: LocalBackend;
  readonly vmName: string;
  readonly portForwards: readonly PortForward[];
}

/**
 * What Arrakis' own initramfs prints once it has mounted the root, and not before. A guest that starts from another one is made known by
 * `ready_console` in config.yaml.
 */
const ARRAKIS_READY = "^Switching root to ";

/** Inputs as a program would give them; those that nobody names are absent. */
export function inputsOf(request: StartVmRequest, context: InputContext): Values {
  const { config, backend, vmName, portForwards } = context;
  const given = said(request);
  const { nfsServer, nfsPort, nfsPath, initramfs, rootfs, ...file } = config.boot;
  const useNfsRoot = given["useNfsRoot"] ?? file.useNfsRoot ?? false;
  const hasInitramfs = given["initramfs"] !== undefined || (useNfsRoot !== true && initramfs !== undefined);
  const console = config.readyConsole ?? (hasInitramfs ? ARRAKIS_READY : undefined);
  return {
    ...(console === undefined ? {} : { readiness: { console } }),
    ...said(file),
    // Of the file, what belongs to the kind of root: Arrakis' initramfs mounts /dev/vda and never reaches an NFS root.
    ...said(useNfsRoot === true ? { nfsServer, nfsPort, nfsPath } : { initramfs, rootfs }),
    ...said({ memoryMiB: config.memoryMiB, network: config.network }),
    ...given,
    useNfsRoot,
    vmName,
    backend,
    portForwards,
  };
}

/** An empty text, and a port 0, are Arrakis' clients' way to say nothing. */
function said(values: Values): Values {
  return Object.fromEntries(
    Object.entries(values).filter(
      ([, value]) => value !== undefined && value !== null && value !== "" && value !== 0,
    ),
  );
}
