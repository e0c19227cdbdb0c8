/** check of the export resources: whose an export is, where it is served, what is there, what this host and its ports say. */

import { stat } from "node:fs/promises";

import type { Owner } from "../backends/backend.js";
import { type CheckFailure, type CheckResult, knownInputs } from "../check-result.js";
import { MicroVmError, shown, withCode } from "../errors.js";
import { readHostId } from "../host/state-directory.js";
import { isAbsent, storageError } from "../host/storage.js";
import { stateDirectoryOf } from "../observed.js";
import { isEqual } from "../plan/equal.js";
import type { Values } from "../plan/fields.js";
import { contextOf } from "../spec/context.js";
import { asFailure, type Failure } from "../spec/validate.js";
import { bindAddress, exportName, serverOf, servingPlace } from "./inputs.js";
import { type ExportState, observeExport } from "./life.js";
import { portFailures } from "./ports.js";
import { readExport } from "./record.js";

/** Who asks: the owner of the existing export stays, whatever alias the program has given its resource since. */
export function ownerOfExport(olds: Values, news: Values): Owner {
  return Object.keys(olds).length > 0 && olds["owner"] !== undefined
    ? contextOf(olds, { ...news, owner: olds["owner"] }).owner
    : contextOf(olds, news).owner;
}

/** Ports and path of an export; what is not known yet as `UNKNOWN`. */
export interface Served {
  readonly nfsPort: unknown;
  readonly nfsMountPort: unknown;
  readonly nfsPath: unknown;
}

/**
 * Checked inputs that every export resource has.
 *
 * @param values Inputs that were looked at by themselves. `port` goes into what is served, and does not stand here.
 */
export async function servedInputs(
  olds: Values,
  owner: Owner,
  values: Values,
  served: Served,
): Promise<Record<string, unknown>> {
  const { port: _, ...kept } = values;
  return {
    ...kept,
    bind: values["bind"] ?? "127.0.0.1",
    nfsServer: serverOf(bindAddress(values)),
    ...served,
    owner,
    stateDirectory: stateDirectoryOf(olds),
    observed: await observedInput(olds, owner),
  };
}

/**
 * What check says is there, so that a preview shows `"running" => "stopped"`. A state directory that is not to be seen from here says
 * nothing.
 *
 * @param olds Checked inputs of the last up; empty when there was none.
 */
async function observedInput(olds: Values, owner: Owner): Promise<ExportState> {
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

/** What the last part of a check is given beside the inputs. */
export interface Judgement {
  /** What is wrong with the inputs by themselves. */
  readonly failures: readonly Failure[];
  /** Inputs that make another export: see {@link differing}. */
  readonly identity: readonly string[];
  /** What this host says of a server that is to be started. */
  readonly hostFailures: () => Promise<readonly Failure[]>;
}

/** The result for the engine: where the inputs are right, this host is asked, and then the ports. */
export async function checkedExport(
  olds: Values,
  owner: Owner,
  inputs: Values,
  { failures: wrong, identity, hostFailures }: Judgement,
): Promise<CheckResult> {
  const failures = [...wrong];
  const isNew = Object.keys(olds).length === 0 || differing(identity, olds, inputs).length > 0;
  if (failures.length === 0 && isNew) failures.push(...(await hostFailures()));
  if (failures.length === 0) {
    const asked = { owner, stateDirectory: stateDirectoryOf(olds), isNew };
    failures.push(...(await portFailures(servingPlace(inputs), asked)));
  }
  return {
    inputs: failures.length === 0 ? inputs : knownInputs(inputs),
    failures: failures.map(checkFailure),
  };
}

/** A failure as the engine takes it: of a secret, it would print the value in clear. */
function checkFailure({ input, text, code = "invalid-input" }: Failure): CheckFailure {
  return { property: input === "key" ? "" : input, reason: withCode(`${input}: ${text}`, code) };
}

/**
 * The failure of an input from what a look at this host threw; none when it threw nothing.
 *
 * @param input Whose failure it is where the error names none.
 */
export async function failureOf(look: () => Promise<unknown>, input: string): Promise<Failure[]> {
  try {
    await look();
    return [];
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    return [asFailure(error, input)];
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
    `expected a folder that holds a root file system, and there is no folder ${shown(path)}; make it, or correct the path`,
    { input },
  );
}

/** Which of the named values differ. An unknown new value counts as a change, since it may be one. */
export function differing(names: readonly string[], olds: Values, news: Values): string[] {
  return names.filter((name) => !isEqual(olds[name], news[name]));
}
