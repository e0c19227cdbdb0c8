/**
 * The dynamic provider of NfsExport: what Pulumi's state points at.
 *
 * The path `pulumi-microvm/nfs` stands in the state of every NfsExport ever made: it must never change.
 *
 * nfs-ganesha's file handles outlive its process. So a server that has ended is started again in place, and guests go on.
 */

import { atBorder } from "./border.js";
import { type CheckResult, knownInputs } from "./check-result.js";
import { watchEngine, whileEngineLives } from "./engine.js";
import { shown } from "./errors.js";
import { assertGanesha } from "./exports/ganesha.js";
import {
  bindAddress,
  defaultClients,
  nfsExportRows,
  placeFailures,
  serverOf,
  servingPlace,
  validated,
} from "./exports/inputs.js";
import { createExport, observeExport, ownExport, removeExport, restartExport } from "./exports/life.js";
import { portFailures, portOf } from "./exports/ports.js";
import type { GaneshaServing } from "./exports/record.js";
import {
  assertFolder,
  assertHere,
  differing,
  exportFailure,
  exportOutputs,
  exportReference,
  failureOf,
  newRecord,
  observedInput,
  observedOf,
  ownerOfExport,
  presentExport,
  readResource,
} from "./exports/resource.js";
import { openStateDirectory } from "./host/state-directory.js";
import { printNotice } from "./notice.js";
import { stateDirectoryOf } from "./observed.js";
import type { Values } from "./plan/fields.js";
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
  const { values, failures: wrong } = validated(nfsExportRows, news);
  const failures: Failure[] = [...wrong, ...placeFailures(values)];
  if (news["directory"] === undefined || news["directory"] === null) {
    failures.push({ input: "directory", text: "expected an absolute path, got nothing" });
  }
  const stateDirectory = stateDirectoryOf(olds);
  const nfsPort = values["port"] ?? portOf(owner.urn, stateDirectory);
  const mountPort = values["mountPort"] ?? (typeof nfsPort === "number" ? nfsPort + 1 : UNKNOWN);
  if (mountPort === nfsPort && nfsPort !== UNKNOWN) {
    const text = `expected another port than that of the NFS service, got ${shown(mountPort)}: nfs-ganesha serves each on one of its own`;
    failures.push({ input: "mountPort", text });
  }
  const { port: _, mountPort: __, ...kept } = values;
  const inputs: Record<string, unknown> = {
    ...kept,
    bind: values["bind"] ?? "127.0.0.1",
    readOnly: values["readOnly"] ?? false,
    squash: values["squash"] ?? "none",
    allowedClients: values["allowedClients"] ?? defaultClients(values["bind"], values["network"]),
    nfsServer: serverOf(bindAddress(values)),
    nfsPort,
    nfsPath: values["directory"],
    nfsMountPort: mountPort,
    owner,
    stateDirectory,
    observed: await observedInput(olds, owner),
  };
  const isNew = Object.keys(olds).length === 0 || differing(identity, olds, inputs).length > 0;
  if (failures.length === 0 && isNew) failures.push(...(await hostFailures(inputs)));
  if (failures.length === 0) {
    failures.push(...(await portFailures(servingPlace(inputs), { owner, stateDirectory, isNew })));
  }
  return {
    inputs: failures.length === 0 ? inputs : knownInputs(inputs),
    failures: failures.map(exportFailure),
  };
});

/** A server that has ended is started again; another export is a replace. */
export const diff = atBorder(async (id: string, olds: Values, news: Values) => {
  const observed = await observedOf(id, olds);
  const isLost = observed === "damaged" || observed === "gone";
  const replaces = [...differing(identity, olds, news), ...(isLost ? ["observed"] : [])];
  return {
    changes: replaces.length > 0 || observed === "stopped",
    replaces,
    deleteBeforeReplace: true,
  };
});

/** Serves the directory. */
export const create = atBorder(async (inputs: Values): Promise<{ id: string; outs: Values }> => {
  const owner = ownerOfExport({}, inputs);
  const { path: stateDirectory } = await openStateDirectory(stateDirectoryOf(inputs));
  const record = newRecord(inputs, owner, servingOf(inputs));
  const ready = await whileEngineLives((signal) =>
    createExport(record, { stateDirectory, signal, notice: printNotice }),
  );
  return {
    id: `${ready.name}/${ready.instance}`,
    outs: await exportOutputs(inputs, stateDirectory, ready, "running"),
  };
});

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
const remove = atBorder(async (id: string, outputs: Values): Promise<void> => {
  await assertHere(id, outputs);
  const { stateDirectory, name, instance } = exportReference(id, outputs);
  const record = await ownExport(stateDirectory, name, instance);
  if (record === undefined) return;
  await whileEngineLives(async () => await removeExport(stateDirectory, record));
});
export { remove as delete };

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
