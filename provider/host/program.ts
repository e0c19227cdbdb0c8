/** Programs of this host: found before they are run, so that a missing one is told by its package. */

import { accessSync, constants, statSync } from "node:fs";
import { isAbsolute, join } from "node:path";

import { MicroVmError, systemCodeOf } from "../errors.js";

/** Where distributions keep what only root has on PATH. */
const SYSTEM_FOLDERS = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/**
 * The absolute path of a program: an absolute path itself, or a name on PATH or in the system's own folders.
 *
 * @param hint How to come by it, such as `"install the package e2fsprogs"`.
 * @throws MicroVmError `host-unusable` when there is none that can be run.
 */
export function findProgram(name: string, hint: string, env: NodeJS.ProcessEnv = process.env): string {
  if (isAbsolute(name)) {
    if (isProgram(name)) return name;
    throw new MicroVmError("host-unusable", `${name} is no program that can be run; ${hint}`);
  }
  const folders = [...(env["PATH"] ?? "").split(":"), ...SYSTEM_FOLDERS].filter(isAbsolute);
  const found = folders.map((folder) => join(folder, name)).find(isProgram);
  if (found !== undefined && !name.includes("/")) return found;
  // What npm and npx put on PATH says nothing to a person.
  const told = [...new Set(folders)].filter((folder) => !folder.includes("/node_modules/"));
  throw new MicroVmError(
    "host-unusable",
    `the program ${name} was not found (looked in ${told.join(", ")}); ${hint}`,
  );
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch (error) {
    if (systemCodeOf(error) !== undefined) return false; // not there, or not for this user
    throw error;
  }
}
