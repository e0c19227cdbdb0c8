/** Which versions of Cloud Hypervisor we drive. */

import { MicroVmError, shown } from "../../errors.js";

/** The first with `vm.resize-disk`, and with locks on disk images that a network file system can hold. */
export const OLDEST_VERSION = 50;

/**
 * Takes a version that we can drive.
 *
 * @param version As the VMM tells it: `54.0.0`, or `v53.0-246-gae44c2971`.
 * @param found Who tells it, as the error names it.
 * @throws MicroVmError `host-unusable` for a version that is too old, or none.
 */
export function assertVersion(version: string, found: string): void {
  const major = /^v?(\d+)\.\d+/.exec(version)?.[1];
  if (major !== undefined && Number(major) >= OLDEST_VERSION) return;
  throw new MicroVmError(
    "host-unusable",
    `expected Cloud Hypervisor ${OLDEST_VERSION}.0 or later, found ${found} of version ${shown(version)}. Install a later one, or name it by backend.binary`,
    { input: "backend.binary" },
  );
}
