/** What a VM has left on this host. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { tapNameOf } from "../../../provider/boot/boot.js";
import { vmPaths } from "../../../provider/host/paths.js";
import { findByArgument } from "../../../provider/host/process.js";

/** A VM of a lab. */
export interface Left {
  /** The lab's. */
  readonly folder: string;
  readonly stateDirectory: string;
  readonly vmName: string;
  /** Absent where it is not known: then all by that name is looked for. */
  readonly instance: string | undefined;
}

/** Processes, a tap, and files and leases in the state and runtime directories and those of clients; empty when there is nothing. */
export function leftovers({ folder, stateDirectory, vmName, instance }: Left): string[] {
  const found = findByArgument(instance ?? vmPaths(stateDirectory, vmName).directory);
  const processes = found.map(({ pid }) => `process ${pid}`);
  const tap = instance === undefined ? undefined : tapNameOf(instance);
  const taps = tap !== undefined && existsSync(`/sys/class/net/${tap}`) ? [tap] : [];
  const paths = [stateDirectory, join(folder, "run"), join(folder, "clients")].flatMap(contentOf);
  const leases = paths.filter(
    (path) =>
      path.endsWith("holder.json") &&
      !path.includes("/.") &&
      readFileSync(path, "utf8").includes(instance ?? `"${vmName}"`),
  );
  const files = paths.filter(
    (path) => (instance !== undefined && path.includes(instance)) || path.includes(`/${vmName}`),
  );
  return [...processes, ...files, ...leases, ...taps];
}

function contentOf(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, encoding: "utf8" }).map((path) => join(folder, path));
}
