/** A server's answers as what the resource tells. Pure. */

import { MicroVmError, shown } from "../../errors.js";
import type { Vm } from "../../server/wire.js";
import type { ObservedState, ServerVmOutputs, VmReference } from "../backend.js";

/** What the server says of a VM. What it does not say is left out. */
export function outputsOf(vm: Vm): ServerVmOutputs {
  const { ip, instance, cmdline } = vm;
  const state = stateOf(vm);
  const rootEvidence = evidenceNow(state, vm.rootEvidence);
  const address = ip?.split("/")[0];
  return {
    state,
    ...(rootEvidence === undefined ? {} : { rootEvidence }),
    ...(instance === undefined ? {} : { instance }),
    ...(address ? { guestIp: address } : {}),
    ...(cmdline === undefined ? {} : { cmdline }),
  };
}

/** What a guest has shown counts as long as it runs. */
export function evidenceNow(
  state: ObservedState,
  seen: ServerVmOutputs["rootEvidence"],
): ServerVmOutputs["rootEvidence"] {
  return state === "stopped" ? "none" : seen;
}

/** Whether a VM of the list is the one of the reference: a server that tells instances has another one by the same name. */
export function isSame(vm: Vm, { vmName, instance }: VmReference): boolean {
  return vm.vmName === vmName && (vm.instance === undefined || vm.instance === instance);
}

/**
 * Status of the API, in capitals. One that is made and does not run yet is no different from one that was stopped.
 *
 * @throws MicroVmError `server-failed` for any other than is known: a server of ours has `CREATING` and `UNREACHABLE`, which tell nothing.
 */
export function stateOf({ vmName, status }: Vm): ObservedState {
  switch (status) {
    case "RUNNING":
      return "running";
    case "PAUSED":
      return "paused";
    case "STOPPED":
    case "CREATED":
      return "stopped";
    case "DAMAGED":
      return "damaged";
    case "REMOVING":
      return "gone";
    default:
      throw new MicroVmError(
        "server-failed",
        `the server says that the VM ${vmName} is ${shown(status)}; look at it there`,
      );
  }
}
