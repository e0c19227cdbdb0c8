/** What the two export resources have in common as providers: who asks, what is there, the outputs, the way out. */

import { randomBytes } from "node:crypto";
import { stat } from "node:fs/promises";
import { isDeepStrictEqual } from "node:util";

import type { Owner } from "../backends/backend.js";
import type { CheckFailure } from "../check.js";
import { MicroVmError, messageOf, shown, withCode } from "../errors.js";
import { thisProcess } from "../host/process.js";
import { readHostId } from "../host/state-directory.js";
import { isAbsent, storageError } from "../host/storage.js";
import { printOnce } from "../notice.js";
import { noticeText } from "../notices.js";
import { stateDirectoryOf } from "../observed.js";
import { contextOf } from "../spec/context.js";
import type { Failure } from "../spec/validate.js";
import { confirmExport, exportPaths } from "./paths.js";
import { bridgeOf, exportName, servingPlace } from "./inputs.js";
import { type ExportState, observeExport, ownExport } from "./life.js";
import { type ExportRecord, readExport } from "./record.js";

type Values = Readonly<Record<string, unknown>>;

/** One export of one create. The Pulumi id is `<name>/<instance>`. */
export interface ExportReference {
  readonly name: string;
  readonly instance: string;
  readonly stateDirectory: string;
}

/**
 * The export that a Pulumi id names.
 *
 * @throws MicroVmError `invalid-input` when the id is not one of ours.
 */
export function exportReference(id: string, outputs: Values): ExportReference {
  const [, name, instance] = /^([^/]+)\/([0-9a-f]{16})$/.exec(id) ?? [];
  if (name === undefined || instance === undefined) {
    throw new MicroVmError("invalid-input", `expected <name>/<16 hex digits>, got ${shown(id)}`, {
      input: "id",
    });
  }
  return { name, instance, stateDirectory: stateDirectoryOf(outputs) };
}

/** Who asks: the owner of the existing export stays, whatever alias the program has given its resource since. */
export function ownerOfExport(olds: Values, news: Values): Owner {
  return Object.keys(olds).length > 0 && olds["owner"] !== undefined
    ? contextOf(olds, { ...news, owner: olds["owner"] }).owner
    : contextOf(olds, news).owner;
}

/** A failure as the engine takes it: of a secret, it would print the value in clear. */
export function exportFailure({ input, text, code = "invalid-input" }: Failure): CheckFailure {
  return { property: input === "key" ? "" : input, reason: withCode(`${input}: ${text}`, code) };
}

/** A failure from what a look at this host threw. */
export async function failureOf(look: () => Promise<unknown>, input: string): Promise<Failure[]> {
  try {
    await look();
    return [];
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    return [{ input: error.input ?? input, code: error.code, text: error.text }];
  }
}

/**
 * Makes sure that a folder is there.
 *
 * @throws MicroVmError `file-unusable`
 */
export async function assertFolder(path: string, input: string): Promise<void> {
  try {
    if ((await stat(path)).isDirectory()) return;
  } catch (error) {
    if (!isAbsent(error)) throw storageError(error, `look for ${path}`);
  }
  throw new MicroVmError(
    "file-unusable",
    `expected a folder that holds a root file system, got ${shown(path)}`,
    { input },
  );
}

/** The record of an export that is to be made. */
export function newRecord(inputs: Values, owner: Owner, serving: ExportRecord["serving"]): ExportRecord {
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

/**
 * What check says is there, so that a preview shows `"running" => "stopped"`. A state directory that is not to be seen from here says
 * nothing.
 *
 * @param olds Checked inputs of the last up; empty when there was none.
 */
export async function observedInput(olds: Values, owner: Owner): Promise<ExportState> {
  if (Object.keys(olds).length === 0) return "running";
  const stateDirectory = stateDirectoryOf(olds);
  try {
    if ((await readHostId(stateDirectory)) === undefined) return "running";
    const record = await readExport(stateDirectory, exportName(owner.urn));
    return record === undefined || record.owner.urn !== owner.urn ? "gone" : await observeExport(record);
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    return "running"; // diff looks again, and tells
  }
}

/** What is there of an export that the engine's state holds. A state directory that is not to be seen from here says nothing. */
export async function observedOf(id: string, outputs: Values): Promise<ExportState | "unknown"> {
  try {
    await assertHere(id, outputs);
    const { stateDirectory, name, instance } = exportReference(id, outputs);
    const record = await ownExport(stateDirectory, name, instance);
    if (record === undefined) return "gone";
    await confirmExport(stateDirectory, name, instance);
    return await observeExport(record);
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    printOnce(noticeText("not-observed", { vm: id, finding: messageOf(error) }));
    return "unknown";
  }
}

/** What a refresh finds. One that is gone leaves the state; another host's is an error, never "gone". */
export async function readResource(id: string, outputs: Values): Promise<{ id?: string; props?: Values }> {
  await assertHere(id, outputs);
  const { stateDirectory, name, instance } = exportReference(id, outputs);
  const record = await ownExport(stateDirectory, name, instance);
  if (record === undefined) return {};
  await confirmExport(stateDirectory, name, instance);
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
  await assertHere(id, outputs);
  const { stateDirectory, name, instance } = exportReference(id, outputs);
  const record = await ownExport(stateDirectory, name, instance);
  if (record !== undefined) {
    await confirmExport(stateDirectory, name, instance);
    return { record, stateDirectory };
  }
  throw new MicroVmError("nfs-server-failed", `the export ${id} is gone; run pulumi refresh, then pulumi up`);
}

/**
 * Makes sure that the export's state directory is this host's.
 *
 * @throws MicroVmError `other-host`
 */
export async function assertHere(id: string, outputs: Values): Promise<void> {
  const { hostId } = outputs;
  const stateDirectory = stateDirectoryOf(outputs);
  if (typeof hostId !== "string" || hostId === (await readHostId(stateDirectory))) return;
  throw new MicroVmError(
    "other-host",
    `the export ${id} is kept in ${stateDirectory} of host ${hostId}, and that folder is not here. Run on that host; if it is gone for good, run pulumi state delete with the resource's URN`,
  );
}

/** Which of the named values differ. An unknown new value counts as a change, since it may be one. */
export function differing(names: readonly string[], olds: Values, news: Values): string[] {
  return names.filter((name) => !isDeepStrictEqual(plain(olds[name]), plain(news[name])));
}

/** Without the prototypes that a value has picked up on its way through the engine. */
function plain(value: unknown): unknown {
  return value === undefined ? null : JSON.parse(JSON.stringify(value));
}
