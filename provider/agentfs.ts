/**
 * The dynamic provider of AgentFs: what Pulumi's state points at.
 *
 * The path `pulumi-microvm/agentfs` stands in the state of every AgentFs ever made: it must never change.
 *
 * The file handles of AgentFS live and die with the server's process. So a server that has ended is not started again in place: the
 * resource is replaced, and with it every VM that has its root here.
 */

import { join } from "node:path";

import { atBorder } from "./border.js";
import type { CheckResult } from "./check-result.js";
import { watchEngine, whileEngineLives } from "./engine.js";
import {
  agentFsProgram,
  canServeEncrypted,
  type DatabaseKey,
  hasDatabase,
  realDatabasePath,
  removeDatabase,
} from "./exports/agentfs.js";
import {
  assertFolder,
  checkedExport,
  differing,
  failureOf,
  ownerOfExport,
  servedInputs,
} from "./exports/check.js";
import { agentFsRows, placeFailures } from "./exports/inputs.js";
import { observeExport } from "./exports/life.js";
import { portOf } from "./exports/ports.js";
import type { AgentFsServing } from "./exports/record.js";
import {
  createResource,
  differenceOf,
  exportOutputs,
  presentExport,
  readResource,
  removeResource,
} from "./exports/resource.js";
import { MicroVmError } from "./errors.js";
import { stateDirectoryOf } from "./observed.js";
import type { Values } from "./plan/fields.js";
import { validateRows } from "./spec/rows.js";
import { type Failure, holdsUnknown, UNKNOWN } from "./spec/validate.js";

/** What makes another server: a change of any replaces the resource, and so its VMs. */
const identity = [
  "databasePath",
  "baseDirectory",
  "bind",
  "network",
  "nfsServer",
  "nfsPort",
  "key",
  "cipher",
] as const;

/** Inputs to checked inputs. The port is known in the first preview, so the command line of a VM on this root is, too. */
export const check = atBorder(async (olds: Values, news: Values): Promise<CheckResult> => {
  watchEngine();
  const owner = ownerOfExport(olds, news);
  const { values, failures } = validateRows(agentFsRows, news);
  const { agentId: _, ...kept } = values;
  const port = values["port"] ?? portOf(owner.urn, stateDirectoryOf(olds));
  const databasePath = await databaseOf(values, owner.program);
  const served = { nfsPort: port, nfsMountPort: port, nfsPath: "/" };
  const inputs = await servedInputs(olds, owner, { ...kept, databasePath }, served);
  return await checkedExport(olds, owner, inputs, {
    failures: [...failures, ...placeFailures(values), ...ruleFailures(values, news)],
    identity,
    hostFailures: async () => await hostFailures(inputs),
  });
});

/** Another server is another root for the VMs on it: everything but `deleteDatabase` and the program replaces. */
export const diff = atBorder(async (id: string, olds: Values, news: Values) => {
  const { replaces } = await differenceOf(id, olds, news, { identity, lost: ["stopped", "damaged", "gone"] });
  const settings = differing(["deleteDatabase", "binary"], olds, news);
  return { changes: replaces.length + settings.length > 0, replaces, deleteBeforeReplace: true };
});

/** Makes the database where there is none, and serves it. */
export const create = atBorder(
  async (inputs: Values): Promise<{ id: string; outs: Values }> =>
    await createResource(inputs, servingOf(inputs), keyOf(inputs)),
);

/** What is there now. One that is gone leaves the state; another host's is an error, never "gone". */
export const read = atBorder(readResource);

/** Takes over what does not touch the server. */
export const update = atBorder(async (id: string, olds: Values, news: Values): Promise<{ outs: Values }> => {
  const { record, stateDirectory } = await presentExport(id, olds);
  return { outs: await exportOutputs(news, stateDirectory, record, await observeExport(record)) };
});

/** Ends the server. The database stays, unless `deleteDatabase` is true. Deleting what is gone succeeds. */
const remove = atBorder(
  async (id: string, outputs: Values): Promise<void> =>
    await whileEngineLives(async () => {
      await removeResource(id, outputs);
      if (outputs["deleteDatabase"] === true) await removeDatabase(String(outputs["databasePath"]));
    }),
);
export { remove as delete };

function servingOf(inputs: Values): AgentFsServing {
  const { binary, databasePath, baseDirectory } = inputs as Readonly<Record<string, string | undefined>>;
  return {
    type: "agentfs",
    databasePath: String(databasePath),
    ...(baseDirectory === undefined ? {} : { baseDirectory }),
    program: agentFsProgram(binary),
  };
}

function keyOf({ key, cipher }: Values): DatabaseKey | undefined {
  return typeof key === "string" ? { key, cipher: String(cipher) } : undefined;
}

/** Where the database is: as the person says, or where `agentfs` itself looks for an id in the program's folder. */
async function databaseOf({ agentId, databasePath }: Values, program: string): Promise<unknown> {
  if (typeof databasePath === "string") {
    return databasePath === UNKNOWN ? UNKNOWN : await realDatabasePath(databasePath);
  }
  if (typeof agentId !== "string" || agentId === UNKNOWN) return UNKNOWN;
  return await realDatabasePath(join(program, ".agentfs", `${agentId}.db`));
}

function ruleFailures({ key, cipher }: Values, { agentId, databasePath }: Values): Failure[] {
  const failures: Failure[] = [];
  if (isGiven(agentId) === isGiven(databasePath)) {
    const found = isGiven(agentId) ? "both" : "neither";
    failures.push({ input: "id", text: `expected an id or a databasePath, got ${found}` });
  }
  if ((key === undefined) !== (cipher === undefined)) {
    const [input, other] = key === undefined ? ["key", "cipher"] : ["cipher", "key"];
    failures.push({ input, text: `expected a value beside ${other}, got nothing` });
  }
  return failures;
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** What this host says of an export that is to be started. */
async function hostFailures(inputs: Values): Promise<Failure[]> {
  const { binary, key, databasePath, baseDirectory } = inputs;
  if (holdsUnknown(binary)) return [];
  const named = typeof binary === "string" ? binary : undefined;
  const missing = await failureOf(async () => agentFsProgram(named), "binary");
  if (missing.length > 0) return missing;
  if (key !== undefined) {
    const program = agentFsProgram(named);
    if (!(await canServeEncrypted(program))) {
      const text = `expected none, since ${program} cannot serve an encrypted database over NFS (AgentFS 0.6.4 cannot). Leave key and cipher out, or use a release that can`;
      return [{ input: "key", code: "not-supported", text }];
    }
  }
  if (holdsUnknown([databasePath, baseDirectory])) return [];
  return await failureOf(async () => {
    if (typeof baseDirectory === "string") await assertFolder(baseDirectory, "baseDirectory");
    if (typeof databasePath !== "string" || (await hasDatabase(databasePath))) return;
    if (baseDirectory === undefined) throw noBase(databasePath);
  }, "databasePath");
}

function noBase(databasePath: string): MicroVmError {
  return new MicroVmError(
    "invalid-input",
    `expected a folder, since there is no database ${databasePath} yet: a new one is made as an overlay of a root file system`,
    { input: "baseDirectory" },
  );
}
