/** Whether a VMM that somebody else keeps running can be given a VM. */

import { basename, dirname } from "node:path";

import { CloudHypervisorApi } from "../backends/cloud-hypervisor/api.js";
import type { VmInfoBody } from "../backends/cloud-hypervisor/schemas.js";
import { MicroVmError, systemCodeOf } from "../errors.js";
import { instanceOfVsock } from "../host/runtime-directory.js";
import type { Finding } from "./finding.js";

/**
 * Looks at who answers at an API socket, and which VM it has.
 *
 * @param socket Absolute path.
 * @param vmName Name of the VM that is to be there; absent while it is not known.
 */
export async function attachedFindings(socket: string, vmName: string | undefined): Promise<Finding[]> {
  const rest = { input: "backend.apiSocket", code: "host-unusable" } as const;
  let info: VmInfoBody | undefined;
  try {
    const api = await CloudHypervisorApi.connect(socket);
    try {
      info = await api.info();
    } finally {
      api.close();
    }
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    return [{ ...rest, certain: true, text: wordsOf(error, socket) }];
  }
  if (info === undefined) return [];
  const other = otherVm(info, vmName);
  if (other === undefined) return [];
  if (other === "stranger") {
    const text = `expected a Cloud Hypervisor without a VM at ${socket}, and it has one of somebody else's; a VMM has one VM at a time. Name another VMM, or delete that VM`;
    return [{ ...rest, certain: true, text }];
  }
  // It may be the VM that this one replaces.
  const text = `the Cloud Hypervisor at ${socket} has the VM ${other.name} now, which must be gone before: a VMM has one VM at a time`;
  return [{ ...rest, certain: false, text }];
}

function wordsOf(error: MicroVmError, socket: string): string {
  const code = systemCodeOf(error.cause);
  if (code !== "ENOENT" && code !== "ECONNREFUSED") return error.text;
  const found = code === "ENOENT" ? "there is no such socket" : "nobody listens there";
  return `expected a Cloud Hypervisor that listens at ${socket}, and ${found}. Start it (cloud-hypervisor --api-socket path=${socket}), or leave backend.apiSocket out to have one started for each VM`;
}

/** The VM that is there, unless it is the one that is meant. Its console is in its folder, which has its name. */
function otherVm(
  { config }: VmInfoBody,
  vmName: string | undefined,
): undefined | "stranger" | { readonly name: string } {
  if (instanceOfVsock(config.vsock?.socket ?? "") === undefined) return "stranger";
  const { file } = config.serial ?? {};
  if (typeof file !== "string") return "stranger";
  const name = basename(dirname(dirname(file)));
  return name === vmName || vmName === undefined ? undefined : { name };
}
