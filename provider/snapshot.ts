/**
 * The dynamic provider of MicroVmSnapshot: what Pulumi's state points at.
 *
 * The path `pulumi-microvm/snapshot` stands in the state of every snapshot ever taken: it must never change.
 *
 * A snapshot is taken once. It stays what it is when its VM changes or goes; another `trigger` takes a new one.
 */

import { randomBytes } from "node:crypto";
import type { ArrakisBackend, LocalBackend, VmReference } from "./backends/backend.js";
import { atBorder } from "./border.js";
import { type CheckFailure, type CheckResult, resourceName } from "./check-result.js";
import { watchEngine, whileEngineLives } from "./engine.js";
import { MicroVmError, withCode } from "./errors.js";
import { confirmSnapshot } from "./host/confirm-snapshot.js";
import { readRecord } from "./host/record.js";
import {
  observeSnapshot,
  readSnapshot,
  removeSnapshot,
  removeUnclaimed,
  type SnapshotState,
} from "./host/snapshots.js";
import { readHostId } from "./host/state-directory.js";
import { printNotice, printOnce } from "./notice.js";
import { noticeText } from "./notices.js";
import { assertHere, referenceOf, seenOrUnknown, stateDirectoryOf } from "./observed.js";
import type { Values } from "./plan/fields.js";
import { contextOf } from "./spec/context.js";
import { type CheckedSnapshot, isSnapshotChange, snapshotInputs } from "./spec/snapshot-inputs.js";
import { isOnServer } from "./spec/server-inputs.js";
import { type Failure, UNKNOWN } from "./spec/validate.js";

/** Inputs to checked inputs. Of a snapshot that is there, what it was taken of stays. */
export const check = atBorder(async (olds: Values, news: Values): Promise<CheckResult> => {
  watchEngine();
  const snapshot = resourceName(contextOf(olds, news).owner.urn);
  const { inputs, failures } = snapshotInputs(olds, news);
  const isKept = Object.keys(olds).length > 0 && !isSnapshotChange(olds, inputs);
  if (isKept && news["vmId"] !== UNKNOWN && news["vmId"] !== olds["vmId"]) {
    printOnce(noticeText("snapshot-kept", { snapshot, vm: String(olds["vmId"]) }));
  }
  const found = isKept || failures.length > 0 ? [] : await vmFailures(inputs);
  return { inputs, failures: [...failures, ...found].map(checkFailure) };
});

/** Whether another one is to be taken: by the program's wish, or because this one is lost. */
export const diff = atBorder(async (id: string, olds: Values, news: Values) => {
  const observed = await observedOf(id, olds);
  if (observed === "there") await confirmSnapshot(stateDirectoryOf(olds), id);
  const replaces = [
    ...(isSnapshotChange(olds, news) ? ["trigger"] : []),
    ...(observed === "gone" || observed === "damaged" ? ["observed"] : []),
  ];
  // The new one is taken before the old one goes: a failure keeps what there is.
  return { changes: replaces.length > 0, replaces, deleteBeforeReplace: false };
});

/** Takes the snapshot; the VM runs on as it did. */
export const create = atBorder(async (inputs: Values): Promise<{ id: string; outs: Values }> => {
  const { vmId, stateDirectory, backend: server } = inputs as unknown as CheckedSnapshot;
  const { owner } = contextOf({}, inputs);
  if (server !== undefined) return await createOnServer(vmId, server, inputs);
  const reference = referenceOf(vmId, { stateDirectory });
  const snapshotId = `${reference.vmName}-${randomBytes(8).toString("hex")}`;
  const { takenAt } = await whileEngineLives(async (signal) => {
    for (const snapshot of await removeUnclaimed(reference.stateDirectory, owner)) {
      printNotice(noticeText("snapshot-reclaimed", { snapshot }));
    }
    const { backendOf } = await import("./backends/index.js");
    const backend = backendOf((await vmBackendOf(reference)) ?? { type: "cloud-hypervisor" });
    return await backend.takeSnapshot({ id: snapshotId, reference, owner, signal, notice: printNotice });
  });
  const { owner: _, ...kept } = inputs;
  const hostId = await readHostId(reference.stateDirectory);
  return {
    id: snapshotId,
    outs: { ...kept, observed: "there", snapshotId, vmName: reference.vmName, takenAt, hostId },
  };
});

/** A snapshot that the server keeps: it cannot be asked for what it keeps, so what was taken counts as there. */
async function createOnServer(
  vmId: string,
  backend: ArrakisBackend,
  inputs: Values,
): Promise<{ id: string; outs: Values }> {
  const { owner } = contextOf({}, inputs);
  const reference = referenceOf(vmId, inputs);
  const { vmName } = reference;
  const id = `${vmName}-${randomBytes(8).toString("hex")}`;
  const { backendOf } = await import("./backends/index.js");
  const { takenAt } = await whileEngineLives(
    async (signal) =>
      await backendOf(backend).takeSnapshot({ id, reference, owner, signal, notice: printNotice }),
  );
  const { owner: _, ...kept } = inputs;
  return { id, outs: { ...kept, observed: "there", snapshotId: id, vmName, takenAt } };
}

/** What is there now. One that is gone leaves the state; another host's is an error, never "gone". */
export const read = atBorder(
  async (id: string, outputs: Values): Promise<{ id?: string; props?: Values }> => {
    if (isOnServer(outputs)) return { id, props: outputs };
    const stateDirectory = stateDirectoryOf(outputs);
    const hostId = await assertSnapshotHere(id, outputs);
    const observed = await observeSnapshot(stateDirectory, id);
    if (observed === "gone") return {};
    await confirmSnapshot(stateDirectory, id);
    if (observed === "damaged") return { id, props: { ...outputs, observed } };
    const { vmName = "", instance = "", takenAt } = (await readSnapshot(stateDirectory, id)) ?? {};
    const told = { vmId: `${vmName}/${instance}`, stateDirectory, snapshotId: id, vmName, takenAt, hostId };
    return { id, props: { ...outputs, ...told, observed } };
  },
);

/** Removes the snapshot. Removing what is gone succeeds. */
const remove = atBorder(async (id: string, outputs: Values): Promise<void> => {
  if (isOnServer(outputs)) {
    const { url } = outputs["backend"] as ArrakisBackend;
    printNotice(noticeText("snapshot-on-server", { snapshot: id, url }));
    return;
  }
  await assertSnapshotHere(id, outputs);
  await whileEngineLives(async () => await removeSnapshot(stateDirectoryOf(outputs), id));
});
export { remove as delete };

function checkFailure({ input, text, code = "invalid-input" }: Failure): CheckFailure {
  return { property: input, reason: withCode(`${input}: ${text}`, code) };
}

/** What a VM that is known in the preview tells: that its back end takes no snapshots. */
async function vmFailures({ vmId, stateDirectory }: Values): Promise<Failure[]> {
  if (typeof vmId !== "string" || typeof stateDirectory !== "string") return [];
  if (vmId === UNKNOWN || stateDirectory === UNKNOWN) return [];
  try {
    const type = (await vmBackendOf(referenceOf(vmId, { stateDirectory })))?.type;
    if (type === undefined || type === "cloud-hypervisor") return [];
    const text = `expected a VM of the back end "cloud-hypervisor", which takes snapshots, got one of "${type}"`;
    return [{ input: "vmId", code: "not-supported", text }];
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    return [{ input: "vmId", code: error.code, text: error.text }];
  }
}

/** The back end of a VM; undefined when it is not there. */
async function vmBackendOf(reference: VmReference): Promise<LocalBackend | undefined> {
  const record = await readRecord(reference.stateDirectory, reference.vmName);
  return record?.instance === reference.instance ? record.settings.backend : undefined;
}

/** What is there now. A state directory that is not to be seen from here says nothing, and the notice says so. */
async function observedOf(id: string, outputs: Values): Promise<SnapshotState | "unknown"> {
  if (isOnServer(outputs)) return "unknown"; // its API cannot be asked
  return await seenOrUnknown(id, printOnce, async () => {
    await assertSnapshotHere(id, outputs);
    return await observeSnapshot(stateDirectoryOf(outputs), id);
  });
}

async function assertSnapshotHere(id: string, outputs: Values): Promise<string | undefined> {
  return await assertHere(`the snapshot ${id}`, "snapshot", outputs);
}
