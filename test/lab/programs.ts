/** Which programs this machine has. */

import { accessSync, constants, existsSync } from "node:fs";
import { delimiter, join } from "node:path";

/** The real Cloud Hypervisor: named by CLOUD_HYPERVISOR, or on PATH; undefined when there is none. */
export function cloudHypervisorBinary(): string | undefined {
  const named = process.env["CLOUD_HYPERVISOR"];
  if (named !== undefined && named !== "") return named;
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  return folders.map((folder) => join(folder, "cloud-hypervisor")).find((path) => existsSync(path));
}

/** The real AgentFS: named by AGENTFS, or on PATH; undefined when there is none. */
export function agentFsBinary(): string | undefined {
  const named = process.env["AGENTFS"];
  if (named !== undefined && named !== "") return named;
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  return folders.map((folder) => join(folder, "agentfs")).find((path) => existsSync(path));
}

/** Why no AgentFS can be started here, as the reason of a skipped test; undefined when one can. */
export function whyNoAgentFs(): string | undefined {
  return agentFsBinary() === undefined ? "no agentfs in $AGENTFS or on PATH" : undefined;
}

/** A passt, named by PASST or on PATH; undefined when there is none. */
export function passtBinary(): string | undefined {
  const named = process.env["PASST"];
  if (named !== undefined && named !== "") return named;
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  return folders.map((folder) => join(folder, "passt")).find((path) => existsSync(path));
}

/** Whether a program is found on a search path, this process' own by default. */
export function isOnPath(program: string, path = process.env["PATH"] ?? ""): boolean {
  return path.split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      // Looked for in the next folder.
      return false;
    }
  });
}
