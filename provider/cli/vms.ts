/** `microvm ps`, `rm` and `forget`: over the records of the state directory, whoever the VMs belong to. */

import { backendOf } from "../backends/index.js";
import type { ObservedState } from "../backends/backend.js";
import { MicroVmError } from "../errors.js";
import { removeExport } from "../exports/life.js";
import { readExport } from "../exports/record.js";
import { forget } from "../host/forgotten.js";
import { listRecords, readRecord, type ListedRecord, type VmRecord } from "../host/record.js";
import { removeUnreadable } from "../host/remove.js";
import { readHostId } from "../host/state-directory.js";
import type { CommandContext } from "./microvm.js";
import { tableLines } from "./table.js";

/** One line of `microvm ps`. */
interface ListedVm {
  readonly vmName: string;
  readonly state: ObservedState | "unreadable";
  readonly backend: string;
  readonly root: string;
  readonly pid: string;
  readonly owner: string;
}

/** Prints a table of the VMs, or a JSON list. */
export async function listVms({ stateDirectory, print }: CommandContext, json: boolean): Promise<number> {
  const hostId = await readHostId(stateDirectory);
  const listed = hostId === undefined ? [] : await listRecords(stateDirectory);
  const vms = await Promise.all(listed.map((found) => describeVm(stateDirectory, found)));
  if (json) {
    print(JSON.stringify(vms, undefined, 2));
    return 0;
  }
  tableLines([
    ["NAME", "STATE", "BACKEND", "PID", "ROOT", "OWNER"],
    ...vms.map((vm) => [vm.vmName, vm.state, vm.backend, vm.pid, vm.root, vm.owner]),
  ]).forEach(print);
  return 0;
}

async function describeVm(stateDirectory: string, found: ListedRecord): Promise<ListedVm> {
  if ("error" in found) {
    return { vmName: found.vmName, state: "unreadable", backend: "-", pid: "-", root: "-", owner: "-" };
  }
  const { vmName, instance, boot, settings, owner } = found.record;
  const vm = await backendOf(settings.backend).observe({ vmName, instance, stateDirectory });
  const { root } = boot;
  return {
    vmName,
    state: vm.state,
    backend: settings.backend.type,
    pid: vm.pid === undefined ? "-" : String(vm.pid),
    root: root.type === "nfs" ? `${root.hostServer}:${root.path}` : root.rootfs,
    owner: owner.urn,
  };
}

/**
 * Powers VMs off and removes them.
 *
 * @throws MicroVmError `invalid-input` when there is no VM of a name; those before it are removed then.
 */
export async function removeVms(context: CommandContext, vmNames: readonly string[]): Promise<number> {
  for (const vmName of vmNames) {
    await removeVm(context, vmName);
    context.print(`${vmName} is removed`);
  }
  return 0;
}

async function removeVm({ stateDirectory, print }: CommandContext, vmName: string): Promise<void> {
  let record: VmRecord | undefined;
  try {
    record = await readRecord(stateDirectory, vmName);
  } catch (error) {
    if (!(error instanceof MicroVmError) || error.code !== "record-unreadable") throw error;
    await removeUnreadable(stateDirectory, vmName);
    return;
  }
  if (record === undefined) {
    const served = await readExport(stateDirectory, vmName);
    if (served !== undefined) return await removeExport(stateDirectory, served);
    throw new MicroVmError("invalid-input", `there is no VM ${vmName} in ${stateDirectory}`);
  }
  const { instance, settings } = record;
  await backendOf(settings.backend).remove({
    reference: { vmName, instance, stateDirectory },
    shutdownTimeoutSeconds: settings.shutdownTimeoutSeconds,
    signal: new AbortController().signal,
    notice: print,
  });
}

/** Gives VMs up: their folders go to `.lost`, their processes go on, and Pulumi takes them as gone. */
export async function forgetVms(context: CommandContext, vmNames: readonly string[]): Promise<number> {
  for (const vmName of vmNames) await forget(context.stateDirectory, vmName, context.print);
  return 0;
}
