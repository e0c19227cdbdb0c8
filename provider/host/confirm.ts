/**
 * Whether the engine's state holds an instance. The Pulumi program's own process imports this: it loads nothing
 * but Node's modules.
 */

import { readFile } from "node:fs/promises";

import { confirmedMarker, vmPaths } from "./paths.js";
import { isAbsent, lookFor, storageError, syncDirectory, touch } from "./storage.js";

/**
 * Says that the engine's state holds this instance, so that no later create reclaims it. Idempotent; no effect
 * on another instance.
 *
 * @returns Whether that instance is there and now confirmed.
 * @throws MicroVmError `state-directory` when the state directory cannot be read or written.
 */
export async function confirm(stateDirectory: string, vmName: string, instance: string): Promise<boolean> {
  const marker = confirmedMarker(stateDirectory, vmName, instance);
  const { directory, record } = vmPaths(stateDirectory, vmName);
  if (await isConfirmed(stateDirectory, vmName, instance)) return true;
  try {
    if (instanceIn(await readFile(record, "utf8")) !== instance) return false;
    // The instance is in the file's name: should another VM take the folder's name just now, this means nothing to it.
    await touch(marker);
    await syncDirectory(directory);
    return true;
  } catch (error) {
    if (isAbsent(error)) return false; // there is no such VM, or it is being removed
    throw storageError(error, `confirm ${vmName} in ${directory}`);
  }
}

/** Whether the instance has been confirmed. */
export async function isConfirmed(
  stateDirectory: string,
  vmName: string,
  instance: string,
): Promise<boolean> {
  return await lookFor(confirmedMarker(stateDirectory, vmName, instance));
}

/** The instance that a record's text names, without the schema of the rest. A torn record names none. */
export function instanceIn(record: string): unknown {
  try {
    const content: unknown = JSON.parse(record);
    return typeof content === "object" && content !== null && "instance" in content
      ? content.instance
      : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
