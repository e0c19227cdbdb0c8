import { describe, it } from "vitest";

import { backendOf } from "../../../provider/backends/index.js";
import { whyNoNfsServer } from "../../lab/nfs.js";
import { isOnPath } from "../../lab/programs.js";
import { testLocalBackend } from "./contract.js";

const missing = isOnPath("qemu-system-x86_64") ? whyNoNfsServer() : "qemu-system-x86_64 is not installed";

for (const [title, variable] of [
  ["qemu, the distribution's kernel", "MICROVM_LAB_KERNEL"],
  ["qemu, a kernel with NFS root built in", "MICROVM_LAB_NFS_KERNEL"],
] as const) {
  const kernel = process.env[variable];
  const reason = missing ?? (kernel === undefined ? `${variable} is not set` : undefined);
  if (reason === undefined && kernel !== undefined) {
    testLocalBackend(title, { backend: backendOf("qemu"), kernel });
  } else {
    describe(title, () =>
      it.skip(`keeps the contract of local back ends (skipped: ${reason})`, () => undefined),
    );
  }
}
