/** `microvm ps`, `rm` and `forget`: over the records of the state directory, whoever VMs and exports belong to. */

import { backendOf } from "../backends/index.js";
import type { ObservedState } from "../backends/backend.js";
import type { Root } from "../boot/boot.js";
import { MicroVmError } from "../errors.js";
import { observeExport, removeExport } from "../exports/life.js";
import { type ExportRecord, listExports, readExport } from "../exports/record.js";
import { serversOf } from "../exports/server.js";
import { forget } from "../host/forgotten.js";
import { listRecords, readRecord, type ListedRecord, type VmRecord } from "../host/record.js";
import { removeUnreadable } from "../host/remove.js";
import { readHostId } from "../host/state-directory.js";
import type { CommandContext } from "./microvm.js";
import { nfsRootWord } from "./nfs-root.js";
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

/** One export in `microvm ps`. */
interface ListedExport {
  readonly name: string;
  readonly state: "running" | "stopped" | "damaged";
  /** What serves it. */
  readonly server: "agentfs" | "nfs-ganesha";
  /** Process id of the server, `-` where none runs. */
  readonly pid: string;
  /** `HOST:PORT:PATH`, as `microvm doctor --nfs` takes it. */
  readonly root: string;
  /** The database or the folder. */
  readonly serves: string;
  readonly owner: string;
}

/**
 * Prints a table of the VMs, and one of the exports where there are any; or, as JSON, `{ vms, exports }`.
 *
 * @throws MicroVmError `state-directory` when it cannot be read.
 */
export async function listVms({ stateDirectory, print }: CommandContext, json: boolean): Promise<number> {
  const isThere = (await readHostId(stateDirectory)) !== undefined;
  const listed = isThere ? await listRecords(stateDirectory) : [];
  const vms = await Promise.all(listed.map((found) => describeVm(stateDirectory, found)));
  const served = isThere ? await listExports(stateDirectory) : [];
  const exports = await Promise.all(served.map(describeExport));
  if (json) {
    print(JSON.stringify({ vms, exports }, undefined, 2));
    return 0;
  }
  tableLines([
    ["NAME", "STATE", "BACKEND", "PID", "ROOT", "OWNER"],
    ...vms.map((vm) => [vm.vmName, vm.state, vm.backend, vm.pid, vm.root, vm.owner]),
  ]).forEach(print);
  if (exports.length === 0) return 0;
  print("");
  tableLines([
    ["EXPORT", "STATE", "SERVER", "PID", "ROOT", "SERVES", "OWNER"],
    ...exports.map(({ name, state, server, pid, root, serves, owner }) => [
      name,
      state,
      server,
      pid,
      root,
      serves,
      owner,
    ]),
  ]).forEach(print);
  return 0;
}

async function describeExport(record: ExportRecord): Promise<ListedExport> {
  const { name, serving, place, owner } = record;
  const { address, port, mountPort, path } = place;
  const [server] = serversOf(record);
  return {
    name,
    state: await observeExport(record),
    server: serving.type === "agentfs" ? "agentfs" : "nfs-ganesha",
    pid: server === undefined ? "-" : String(server.pid),
    root: nfsRootWord({ server: address, port, mountPort, path }),
    serves: serving.type === "agentfs" ? serving.databasePath : serving.directory,
    owner: owner.urn,
  };
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
    root: root.type === "nfs" ? rootWord(root) : root.rootfs,
    owner: owner.urn,
  };
}

function rootWord({ hostServer, port, mountPort, path }: Extract<Root, { type: "nfs" }>): string {
  return nfsRootWord({
    server: hostServer,
    port,
    path,
    ...(typeof mountPort === "number" ? { mountPort } : {}),
  });
}

/**
 * Powers VMs off and removes them, and ends exports.
 *
 * @throws MicroVmError `invalid-input` when there is neither a VM nor an export of a name; those before it are removed then.
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
    throw new MicroVmError(
      "invalid-input",
      `there is neither a VM nor an export ${vmName} in ${stateDirectory}; microvm ps lists what is there`,
    );
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
