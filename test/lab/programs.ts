/** Which programs this machine has. */

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

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
