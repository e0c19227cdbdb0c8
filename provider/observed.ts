/** From Pulumi's ids and property bags to the VM they name, and from what is there back to outputs. */

import type {
  AnyBackend,
  AnyOutputs,
  ArrakisBackend,
  ObservedState,
  VmReference,
} from "./backends/backend.js";
import { MicroVmError, messageOf, shown } from "./errors.js";
import { defaultStateDirectory, readHostId } from "./host/state-directory.js";
import { isForgotten } from "./host/forgotten.js";
import { readRecord } from "./host/record.js";
import { hasRemains } from "./host/remains.js";
import type { Notice } from "./notice.js";
import { noticeText } from "./notices.js";
import { isDefault, type Values } from "./plan/fields.js";
import { ownerOf } from "./spec/context.js";
import { isOnServer } from "./spec/server-inputs.js";
import { holdsUnknown } from "./spec/validate.js";

/** The state directory of an existing VM, else the one that a new VM gets. */
export function stateDirectoryOf(values: Values): string {
  const recorded = values["stateDirectory"];
  return typeof recorded === "string" ? recorded : defaultStateDirectory();
}

/**
 * The VM that a Pulumi id names, `<vmName>/<instance>`.
 *
 * @throws MicroVmError `invalid-input` when the id is not one of ours.
 */
export function referenceOf(id: string, outputs: Values): VmReference {
  const [vmName, instance, ...rest] = id.split("/");
  if (!vmName || !instance || rest.length > 0) {
    throw new MicroVmError("invalid-input", `expected <vmName>/<instance>, got ${shown(id)}`, {
      input: "id",
    });
  }
  const hostId = outputs["hostId"];
  return {
    vmName,
    instance,
    stateDirectory: stateDirectoryOf(outputs),
    hostId: typeof hostId === "string" ? hostId : undefined,
  };
}

/**
 * Whether the VM's state directory is that of another host, or not to be seen from here: nothing can be said of the VM then,
 * and the notice says so.
 */
export async function isElsewhere(reference: VmReference, notice: Notice): Promise<boolean> {
  const { vmName, stateDirectory, hostId } = reference;
  if (hostId === undefined || (await isForgotten(stateDirectory, vmName))) return false;
  if ((await readHostId(stateDirectory)) === hostId) return false;
  notice(noticeText("made-elsewhere", { vm: vmName, host: hostId, folder: stateDirectory }));
  return true;
}

/**
 * Makes sure that what a resource keeps in a state directory is kept on this host.
 *
 * @param what In words: `the snapshot web-0123456789abcdef`.
 * @param kind Whose URN the message means: `snapshot`.
 * @returns The host id of the state directory; undefined without one, of a resource that was never on a host.
 * @throws MicroVmError `other-host` when it is not the recorded one.
 */
export async function assertHere(what: string, kind: string, outputs: Values): Promise<string | undefined> {
  const { hostId } = outputs;
  const stateDirectory = stateDirectoryOf(outputs);
  const found = await readHostId(stateDirectory);
  if (typeof hostId !== "string" || hostId === found) return found;
  throw new MicroVmError(
    "other-host",
    `${what} is kept in ${stateDirectory} of host ${hostId}, and that folder is not here. Run on that host; if it is gone for good, run pulumi state delete with the ${kind}'s URN`,
  );
}

/**
 * What is there, by a look that may fail: nothing can be said then, and the notice says why.
 *
 * @param vm Whom the notice names.
 */
export async function seenOrUnknown<State>(
  vm: string,
  notice: Notice,
  look: () => Promise<State>,
): Promise<State | "unknown"> {
  try {
    return await look();
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    notice(noticeText("not-observed", { vm, finding: messageOf(error) }));
    return "unknown";
  }
}

/**
 * A resource's outputs: its checked inputs, and what is there now. Left out, so that state stays small, is what diff takes
 * for granted: a value that is its default, and the owner.
 */
export function outputsOf(inputs: Values, vm: AnyOutputs): Values {
  const kept = Object.entries(inputs).filter(([name, value]) => name !== "owner" && !isDefault(name, value));
  // The instance stands in the id.
  const told = Object.entries(vm).filter(([name]) => name !== "instance");
  return { ...Object.fromEntries([...kept, ...told]), observed: vm.state };
}

/** The outputs after another look, without what was seen at an earlier one. */
export function refreshed(outputs: Values, vm: AnyOutputs): Values {
  const seenBefore = new Set(["accelerator", "pid", "requested"]);
  const kept = Object.entries(outputs).filter(([name]) => !seenBefore.has(name));
  return outputsOf(Object.fromEntries(kept), vm);
}

/**
 * Whether the outputs tell of another state than the checked inputs: the state has changed since the outputs were written, or
 * a refresh has just seen that.
 */
export function hasDrifted(outputs: Values, inputs: Values): boolean {
  const [before, now] = [outputs["observed"], inputs["observed"]];
  return before !== undefined && now !== undefined && now !== "unknown" && before !== now;
}

/**
 * What check says is there, for a resource that exists. A VM that is as the last up left it shows as what it will be; one
 * that was lost shows as `"running" => "gone"`. A state directory that is not to be seen from here says nothing.
 *
 * @param olds Checked inputs of the last up, not empty.
 */
export async function observedInput(
  olds: Values,
  news: Values,
  backend: () => Promise<AnyBackend>,
  notice: Notice,
): Promise<unknown> {
  const observed = isOnServer(olds)
    ? await observeServerVm(olds, news, notice)
    : await observe(olds, backend, notice);
  // Of a VM that is replaced, the engine shows the inputs of the new one: nothing else would say why.
  if (observed === "gone" || observed === "damaged") {
    notice(noticeText(`vm-${observed}`, { vm: String(olds["vmName"]) }));
  }
  return observed === olds["powerState"] ? news["powerState"] : observed;
}

/** A VM on a server; the token of now may be another than that of the last up. */
async function observeServerVm(
  olds: Values,
  news: Values,
  notice: Notice,
): Promise<ObservedState | "unknown"> {
  const [before, now] = [olds["backend"], news["backend"]] as [ArrakisBackend, ArrakisBackend | undefined];
  const backend = now?.url === before.url && !holdsUnknown(now) ? now : before;
  const vm = String(olds["vmName"]);
  return await seenOrUnknown(vm, notice, async () => {
    const { observeOnServer } = await import("./preflight/server.js");
    return await observeOnServer(backend, vm);
  });
}

/**
 * `unproved`: the guest was let run by an update that was killed before the guest had proved its root. `stale`: its NFS server does not
 * know its root any more.
 */
type CheckedState = ObservedState | "unproved" | "stale" | "unknown";

async function observe(
  olds: Values,
  backend: () => Promise<AnyBackend>,
  notice: Notice,
): Promise<CheckedState> {
  const vmName = String(olds["vmName"]);
  const stateDirectory = stateDirectoryOf(olds);
  return await seenOrUnknown(vmName, notice, async (): Promise<CheckedState> => {
    if (await isForgotten(stateDirectory, vmName)) return "gone";
    const hostId = await readHostId(stateDirectory);
    if (hostId === undefined) {
      notice(noticeText("folder-elsewhere", { vm: vmName, folder: stateDirectory }));
      return "unknown";
    }
    const record = await readRecord(stateDirectory, vmName);
    if (record === undefined) return (await hasRemains(stateDirectory, vmName)) ? "damaged" : "gone";
    if (record.owner.urn !== ownerOf(olds)?.urn) return "gone";
    const { instance } = record;
    const vm = await (await backend()).observe({ vmName, instance, stateDirectory, hostId });
    if (vm.rootEvidence === "stale") {
      notice(noticeText("root-stale", { vm: vmName }));
      return "stale";
    }
    const isUp = vm.state === "running" || vm.state === "paused";
    return isUp && vm.rootEvidence === "none" ? "unproved" : vm.state;
  });
}
