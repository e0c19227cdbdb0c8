/**
 * The process that works on a Cloud Hypervisor VM, for one operation; the tests kill it. Its only argument is the order in JSON; it
 * prints `begin`, and `end` with the outputs or the error.
 */

import type { CreateRequest, VmReference } from "../../provider/backends/backend.js";
import { cloudHypervisor, programOf } from "../../provider/backends/cloud-hypervisor/cloud-hypervisor.js";
import { localBackend } from "../../provider/backends/local/local.js";
import { MicroVmError, messageOf } from "../../provider/errors.js";
import { cloudHypervisorBinary } from "../lab/programs.js";

/** What is to be done with a VM. */
export interface BackEndOrder {
  readonly what: "create" | "update" | "remove";
  readonly reference: VmReference;
  readonly request: Omit<CreateRequest, "signal" | "notice">;
}

/** Without the look at KVM: the guests are scripted ones. */
export const backEnd = localBackend({
  ...cloudHypervisor,
  find: () => Promise.resolve(programOf(cloudHypervisorBinary() ?? "")),
});

async function obey({ what, reference, request }: BackEndOrder): Promise<unknown> {
  const work = { signal: new AbortController().signal, notice: () => undefined };
  const { boot, settings } = request;
  switch (what) {
    case "create":
      return await backEnd.create({ ...request, ...work });
    case "update":
      return await backEnd.update({ reference, boot, settings, ...work });
    case "remove":
      return await backEnd.remove({ reference, shutdownTimeoutSeconds: 0, ...work });
    default:
      return what satisfies never;
  }
}

if (require.main === module) {
  process.stdout.write("begin\n");
  obey(JSON.parse(process.argv[2] ?? "") as BackEndOrder).then(
    (vm) => process.stdout.write(`end ${JSON.stringify({ vm })}\n`),
    (error: unknown) => {
      const code = error instanceof MicroVmError ? error.code : "unknown";
      process.stdout.write(`end ${JSON.stringify({ code, error: messageOf(error) })}\n`);
    },
  );
}
