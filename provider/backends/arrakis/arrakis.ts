/** VMs that a server runs: Arrakis itself, or anything else that answers its REST API. */

import { MicroVmError } from "../../errors.js";
import { settle } from "../../host/intent.js";
import type { Vm } from "../../server/wire.js";
import type {
  ArrakisBackend,
  Backend,
  CreateRequest,
  OnServer,
  RemoveRequest,
  ServerSnapshot,
  ServerVm,
  ServerVmOutputs,
  SnapshotRequest,
  UpdateRequest,
  VmReference,
} from "../backend.js";
import { stopIfInterrupted } from "../local/interrupt.js";
import { type ArrakisApi, apiOf } from "./api.js";
import { createVm, evidenceOf, removeVm } from "./create.js";
import { isSame, outputsOf } from "./outputs.js";
import { setPower } from "./power.js";

/** How long a health question may take, in seconds. */
const HEALTH_SECONDS = 10;
/** How long a removal may take beside the guest's own power-off, in seconds. */
const REMOVAL_SECONDS = 60;
/** Arrakis waits for a minute for the guest's command server, then answers all the same. */
const START_SECONDS = 90;

/** The back end of one server. */
export function arrakis(options: ArrakisBackend): Backend<OnServer> {
  const { url } = options;
  return {
    observe: async (reference) => await observe(await apiOf(options), reference),
    create: async (request: CreateRequest<ServerVm>) =>
      await createVm({ api: await apiOf(options), url }, request),
    update: async (request) => await update(await apiOf(options), request),
    remove: async (request) => await remove(await apiOf(options), url, request),
    takeSnapshot: async (request) => await takeSnapshot(await apiOf(options), request),
  };
}

async function observe(api: ArrakisApi, reference: VmReference): Promise<ServerVmOutputs> {
  const vm = await find(api, reference);
  return vm === undefined ? { state: "gone" } : outputsOf(vm);
}

async function find(api: ArrakisApi, reference: VmReference): Promise<Vm | undefined> {
  return (await api.list()).find((vm) => isSame(vm, reference));
}

async function update(api: ArrakisApi, request: UpdateRequest<ServerVm>): Promise<ServerVmOutputs> {
  const { reference, settings, signal } = request;
  const { vmName } = reference;
  const { state: from, rootEvidence: seen } = await observe(api, reference);
  stopIfInterrupted(signal);
  let rootEvidence: ServerVmOutputs["rootEvidence"];
  const boot = async (): Promise<void> => {
    const deadline = performance.now() + settings.readiness.timeoutSeconds * 1000;
    const vm = await bootAgain(api, request);
    rootEvidence = await evidenceOf(api, { ...request, vmName }, vm, deadline);
  };
  // A server of ours was killed, or lost patience, while it waited for the guest to show its root.
  if (from === "running" && seen === "none" && settings.powerState !== "stopped") await boot();
  await setPower(api, { vmName, from, settings, boot });
  const outputs = await observe(api, reference);
  return { ...outputs, ...(rootEvidence === undefined ? {} : { rootEvidence }) };
}

/** Boots a VM that is off: Arrakis by another POST of its name (its PATCH cannot), a server of ours by PATCH. */
async function bootAgain(api: ArrakisApi, request: UpdateRequest<ServerVm>): Promise<Vm> {
  const { reference, start, settings, signal } = request;
  const { vmName } = reference;
  const seconds = settings.readiness.timeoutSeconds + START_SECONDS;
  const isOurs = (await api.health(HEALTH_SECONDS))?.features !== undefined;
  if (!isOurs) return await api.start(start, seconds, signal);
  await api.setState(vmName, "resume", seconds);
  const vm = await find(api, reference);
  if (vm !== undefined) return vm;
  throw new MicroVmError("server-failed", `the VM ${vmName} is no longer on the server since it was started`);
}

async function remove(api: ArrakisApi, url: string, request: RemoveRequest): Promise<void> {
  const { reference, shutdownTimeoutSeconds } = request;
  const { stateDirectory, vmName, instance } = reference;
  if ((await find(api, reference)) !== undefined) {
    await removeVm(api, vmName, shutdownTimeoutSeconds + REMOVAL_SECONDS);
  }
  await settle(stateDirectory, url, vmName, instance);
}

async function takeSnapshot(
  api: ArrakisApi,
  { id, reference, signal }: SnapshotRequest,
): Promise<ServerSnapshot> {
  const { vmName } = reference;
  if ((await find(api, reference)) === undefined) {
    throw new MicroVmError("server-failed", `the VM ${vmName} is not on the server`, { input: "vmId" });
  }
  const takenAt = new Date().toISOString();
  const taken = await api.takeSnapshot(vmName, id, signal);
  if (taken === id) return { takenAt };
  throw new MicroVmError("server-failed", `expected the snapshot ${id}, which was asked for, got ${taken}`);
}
