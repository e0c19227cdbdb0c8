/** What the export resources have in common once they are checked: made, looked at, told as outputs, removed. */

import { randomBytes } from "node:crypto";

import type { Owner } from "../backends/backend.js";
import { whileEngineLives } from "../engine.js";
import { MicroVmError, shown } from "../errors.js";
import { thisProcess } from "../host/process.js";
import { openStateDirectory, readHostId } from "../host/state-directory.js";
import { printNotice, printOnce } from "../notice.js";
import { noticeText } from "../notices.js";
import { assertHere, seenOrUnknown, stateDirectoryOf } from "../observed.js";
import type { Values } from "../plan/fields.js";
import type { DatabaseKey } from "./agentfs.js";
import { differing, ownerOfExport } from "./check.js";
import { bridgeOf, exportName, servingPlace } from "./inputs.js";
import { createExport, type ExportState, observeExport, ownExport, removeExport } from "./life.js";
import { confirmExport, exportPaths } from "./paths.js";
import type { ExportRecord } from "./record.js";

/** What is left of an export that an id names. */
interface Found {
  readonly stateDirectory: string;
  /** Its record; undefined when it is gone. */
  readonly record: ExportRecord | undefined;
}

/**
 * Finds the export that a Pulumi id names, `<name>/<instance>`.
 *
 * @throws MicroVmError `invalid-input` when the id is not one of ours; `other-host`.
 */
async function find(id: string, outputs: Values): Promise<Found> {
  await assertHere(`the export ${id}`, "resource", outputs);
  const [, name, instance] = /^([^/]+)\/([0-9a-f]{16})$/.exec(id) ?? [];
  if (name === undefined || instance === undefined) {
    throw new MicroVmError("invalid-input", `expected <name>/<16 hex digits>, got ${shown(id)}`, {
      input: "id",
    });
  }
  const stateDirectory = stateDirectoryOf(outputs);
  return { stateDirectory, record: await ownExport(stateDirectory, name, instance) };
}

/** {@link find}, and notes that the engine's state holds it. */
async function findSaved(id: string, outputs: Values): Promise<Found> {
  const found = await find(id, outputs);
  const { stateDirectory, record } = found;
  if (record !== undefined) await confirmExport(stateDirectory, record.name, record.instance);
  return found;
}

/** The record of an export that is to be made. */
function newRecord(inputs: Values, owner: Owner, serving: ExportRecord["serving"]): ExportRecord {
  const bridge = inputs["bind"] === "bridge" ? bridgeOf(inputs["network"]) : undefined;
  return {
    version: 1,
    name: exportName(owner.urn),
    instance: randomBytes(8).toString("hex"),
    owner,
    phase: "claimed",
    creator: thisProcess(),
    serving,
    place: servingPlace(inputs),
    ...(bridge === undefined ? {} : { bridge }),
    createdAt: new Date().toISOString(),
  };
}

/**
 * Makes an export, and serves it.
 *
 * @param serving What is served.
 * @throws MicroVmError as `createExport`.
 */
export async function createResource(
  inputs: Values,
  serving: ExportRecord["serving"],
  key?: DatabaseKey,
): Promise<{ id: string; outs: Values }> {
  const { path: stateDirectory } = await openStateDirectory(stateDirectoryOf(inputs));
  const record = newRecord(inputs, ownerOfExport({}, inputs), serving);
  const ready = await whileEngineLives((signal) =>
    createExport(record, { stateDirectory, signal, notice: printNotice, key }),
  );
  const { name, instance } = ready;
  return { id: `${name}/${instance}`, outs: await exportOutputs(inputs, stateDirectory, ready, "running") };
}

/** A resource's outputs: its checked inputs, and what is there now. */
export async function exportOutputs(
  inputs: Values,
  stateDirectory: string,
  record: ExportRecord,
  observed: Exclude<ExportState, "gone">,
): Promise<Values> {
  const { owner: _, pid: __, ...kept } = inputs;
  const pid = observed === "running" ? record.server?.pid : undefined;
  return {
    ...kept,
    observed,
    state: observed,
    ...(pid === undefined ? {} : { pid }),
    log: exportPaths(stateDirectory, record.name).log,
    stateDirectory,
    hostId: await readHostId(stateDirectory),
  };
}

/** What diff goes by. */
export interface Difference {
  /** What is there. A state directory that is not to be seen from here says nothing. */
  readonly observed: ExportState | "unknown";
  /** What makes another export of it: inputs that differ, and `observed` where it is lost. */
  readonly replaces: string[];
}

const LOST = {
  gone: "there is no such export any more",
  stopped: "its server has ended",
  damaged: "what it serves is gone or was made anew, or it was never whole",
} as const satisfies Record<Exclude<ExportState, "running">, string>;

/**
 * Whether another export is to be made; where one is lost, a notice says so.
 *
 * @param identity Inputs that make another one.
 * @param lost States of which no server comes back in place.
 */
export async function differenceOf(
  id: string,
  olds: Values,
  news: Values,
  { identity, lost }: { readonly identity: readonly string[]; readonly lost: readonly ExportState[] },
): Promise<Difference> {
  const observed = await seenOrUnknown(id, printOnce, async () => {
    const { record } = await findSaved(id, olds);
    return record === undefined ? "gone" : await observeExport(record);
  });
  const isLost = observed !== "unknown" && observed !== "running" && lost.includes(observed);
  // The engine shows the inputs of the new one: nothing else would say why.
  if (isLost) printOnce(noticeText("export-lost", { export: id.split("/")[0] ?? id, found: LOST[observed] }));
  return { observed, replaces: [...differing(identity, olds, news), ...(isLost ? ["observed"] : [])] };
}

/** What a refresh finds. One that is gone leaves the state; another host's is an error, never "gone". */
export async function readResource(id: string, outputs: Values): Promise<{ id?: string; props?: Values }> {
  const { stateDirectory, record } = await findSaved(id, outputs);
  if (record === undefined) return {};
  const observed = await observeExport(record);
  return { id, props: await exportOutputs(outputs, stateDirectory, record, observed) };
}

/**
 * The export that an update is about.
 *
 * @throws MicroVmError `other-host`, `nfs-server-failed` when it is gone.
 */
export async function presentExport(
  id: string,
  outputs: Values,
): Promise<{ readonly record: ExportRecord; readonly stateDirectory: string }> {
  const { stateDirectory, record } = await findSaved(id, outputs);
  if (record !== undefined) return { record, stateDirectory };
  throw new MicroVmError("nfs-server-failed", `the export ${id} is gone; run pulumi refresh, then pulumi up`);
}

/** Ends the server of an export, and removes its own files. Removing what is gone succeeds. */
export async function removeResource(id: string, outputs: Values): Promise<void> {
  const { stateDirectory, record } = await find(id, outputs);
  if (record !== undefined) await removeExport(stateDirectory, record);
}
