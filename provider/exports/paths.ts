/** Where an export's files are in a state directory. Loads only Node's modules: the Pulumi program's own process imports this. */

import { join } from "node:path";

import { MicroVmError, shown } from "../errors.js";
import { absolute, checkedInstance, isVmName } from "../host/paths.js";
import { isAbsent, storageError, touch } from "../host/storage.js";

/** Files of one export, all absolute. */
export interface ExportPaths {
  /** Folder of all exports, `STATE/.exports`; what is locked while one is claimed. */
  readonly parent: string;
  /** `STATE/.exports/<name>`, mode 0700. */
  readonly directory: string;
  /** The record, `export.json`. */
  readonly record: string;
  /** What the server prints. */
  readonly log: string;
  /** nfs-ganesha's configuration. */
  readonly configuration: string;
}

/** Folder of all exports of a state directory. */
export function exportsFolder(stateDirectory: string): string {
  return join(absolute(stateDirectory), ".exports");
}

/**
 * The files of one export.
 *
 * @throws MicroVmError `invalid-input` when the name is not one DNS label, so that it never leaves the state directory.
 */
export function exportPaths(stateDirectory: string, name: string): ExportPaths {
  if (!isVmName(name)) {
    throw new MicroVmError("invalid-input", `expected one DNS label, found ${shown(name)}`, { input: "id" });
  }
  const parent = exportsFolder(stateDirectory);
  const directory = join(parent, name);
  return {
    parent,
    directory,
    record: join(directory, "export.json"),
    log: join(directory, "server.log"),
    configuration: join(directory, "ganesha.conf"),
  };
}

/** The file whose presence says that the engine's state holds the instance. */
export function exportMarker(stateDirectory: string, name: string, instance: string): string {
  return join(exportPaths(stateDirectory, name).directory, `confirmed-${checkedInstance(instance)}`);
}

/**
 * Says that the engine's state holds this instance, so that no later create takes it for the leftover of a killed one. Idempotent; a
 * marker of an instance that is not there means nothing.
 *
 * @throws MicroVmError `state-directory` when it cannot be written.
 */
export async function confirmExport(stateDirectory: string, name: string, instance: string): Promise<void> {
  const marker = exportMarker(stateDirectory, name, instance);
  try {
    await touch(marker);
  } catch (error) {
    if (!isAbsent(error)) throw storageError(error, `confirm the export ${name}`); // else it is gone
  }
}
