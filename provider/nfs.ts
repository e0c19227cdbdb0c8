/**
 * The dynamic provider of NfsExport: what Pulumi's state points at.
 *
 * The path `pulumi-microvm/nfs` stands in the state of every NfsExport ever made: it must never change.
 *
 * nfs-ganesha's file handles outlive its process. So a server that has ended is started again in place, and guests go on.
 */

import { atBorder } from "./border.js";
import type { CheckResult } from "./check-result.js";
import { watchEngine, whileEngineLives } from "./engine.js";
import { shown } from "./errors.js";
import {
  assertFolder,
  checkedExport,
  failureOf,
  ownerOfExport,
  type Served,
  servedInputs,
} from "./exports/check.js";
import { assertGanesha } from "./exports/ganesha.js";
import { defaultClients, nfsExportRows, placeFailures } from "./exports/inputs.js";
import { observeExport, restartExport } from "./exports/life.js";
import { portOf } from "./exports/ports.js";
import type { GaneshaServing } from "./exports/record.js";
import {
  createResource,
  differenceOf,
  exportOutputs,
  presentExport,
  readResource,
  removeResource,
} from "./exports/resource.js";
import { printNotice } from "./notice.js";
import { stateDirectoryOf } from "./observed.js";
import type { Values } from "./plan/fields.js";
import { validateRows } from "./spec/rows.js";
import { type Failure, UNKNOWN } from "./spec/validate.js";

/** What makes another export: a change of any replaces the resource, and so its VMs. */
const identity = [
  "directory",
  "bind",
  "network",
  "nfsServer",
  "nfsPort",
  "nfsMountPort",
  "readOnly",
  "squash",
  "allowedClients",
] as const;

/** Inputs to checked inputs. The ports are known in the first preview, so the command line of a VM on this root is, too. */
export const check = atBorder(async (olds: Values, news: Values): Promise<CheckResult> => {
  watchEngine();
  const owner = ownerOfExport(olds, news);
  const { values, failures } = validateRows(nfsExportRows, news);
  const { mountPort, ...kept } = values;
  const nfsPort = values["port"] ?? portOf(owner.urn, stateDirectoryOf(olds));
  const nfsMountPort = mountPort ?? (typeof nfsPort === "number" ? nfsPort + 1 : UNKNOWN);
  const settings = {
    ...kept,
    readOnly: values["readOnly"] ?? false,
    squash: values["squash"] ?? "none",
    allowedClients: values["allowedClients"] ?? defaultClients(values["bind"], values["network"]),
  };
  const served = { nfsPort, nfsMountPort, nfsPath: values["directory"] };
  const inputs = await servedInputs(olds, owner, settings, served);
  return await checkedExport(olds, owner, inputs, {
    failures: [...failures, ...placeFailures(values), ...ruleFailures(news, served)],
    identity,
    hostFailures: async () => await hostFailures(inputs),
  });
});

/** A server that has ended is started again; another export is a replace. */
export const diff = atBorder(async (id: string, olds: Values, news: Values) => {
  const { observed, replaces } = await differenceOf(id, olds, news, { identity, lost: ["damaged", "gone"] });
  const changes = replaces.length > 0 || observed === "stopped";
  return { changes, replaces, deleteBeforeReplace: true };
});

/** Serves the directory. */
export const create = atBorder(
  async (inputs: Values): Promise<{ id: string; outs: Values }> =>
    await createResource(inputs, servingOf(inputs)),
);

/** What is there now. One that is gone leaves the state; another host's is an error, never "gone". */
export const read = atBorder(readResource);

/** Starts the server again where it has ended. */
export const update = atBorder(async (id: string, olds: Values, news: Values): Promise<{ outs: Values }> => {
  const { record, stateDirectory } = await presentExport(id, olds);
  const isStopped = (await observeExport(record)) === "stopped";
  const ready = isStopped
    ? await whileEngineLives((signal) =>
        restartExport(record, { stateDirectory, signal, notice: printNotice }),
      )
    : record;
  return { outs: await exportOutputs(news, stateDirectory, ready, await observeExport(ready)) };
});

/** Ends the server; the directory stays. Deleting what is gone succeeds. */
const remove = atBorder(
  async (id: string, outputs: Values): Promise<void> =>
    await whileEngineLives(async () => await removeResource(id, outputs)),
);
export { remove as delete };

function ruleFailures({ directory }: Values, { nfsPort, nfsMountPort }: Served): Failure[] {
  const failures: Failure[] = [];
  if (directory === undefined || directory === null) {
    failures.push({ input: "directory", text: "expected an absolute path, got nothing" });
  }
  if (nfsMountPort === nfsPort && nfsPort !== UNKNOWN) {
    const text = `expected another port than that of the NFS service, got ${shown(nfsMountPort)}: nfs-ganesha serves each on one of its own`;
    failures.push({ input: "mountPort", text });
  }
  return failures;
}

function servingOf({ directory, readOnly, squash, allowedClients }: Values): GaneshaServing {
  return {
    type: "ganesha",
    directory: String(directory),
    readOnly: readOnly === true,
    squash: squash as GaneshaServing["squash"],
    allowedClients: allowedClients as readonly string[],
  };
}

/** What this host says of an export that is to be started. */
async function hostFailures({ directory }: Values): Promise<Failure[]> {
  return await failureOf(async () => {
    assertGanesha();
    if (typeof directory === "string" && directory !== UNKNOWN) await assertFolder(directory, "directory");
  }, "directory");
}
