/** VMs that a server runs: Arrakis itself, or anything that answers its REST API. */

import { MicroVmError } from "../../errors.js";
import type { ArrakisBackend, Backend, OnServer } from "../backend.js";

/** The back end of one server. */
export function arrakis(options: ArrakisBackend): Backend<OnServer> {
  const refuse = (): Promise<never> =>
    Promise.reject(
      new MicroVmError("not-supported", `this release asks no server yet, got ${options.url}`, {
        input: "backend.type",
      }),
    );
  return { observe: refuse, create: refuse, update: refuse, remove: refuse, takeSnapshot: refuse };
}
