/** Fails unless a kernel image, by its own built-in configuration, boots every root on every machine without modules. */

import { bootNeeds, describeLack } from "../../../provider/preflight/kernel/boot-needs.js";
import { inspectKernel } from "../../../provider/preflight/kernel/inspect.js";

async function check(path: string): Promise<void> {
  const facts = await inspectKernel(path);
  if (!facts.configuration.found) throw new Error(facts.configuration.reason);
  if (facts.configuration.source !== "image") throw new Error("the image holds no configuration");
  for (const machine of ["q35", "microvm", "cloud-hypervisor"] as const) {
    for (const root of ["nfs", "disk"] as const) {
      const size = { severalVcpus: true, moreVcpus: true, moreMemory: true };
      const need = { root, machine, dhcp: true, disks: true, overlay: false, ownInitramfs: false, size };
      const verdict = bootNeeds(facts, need);
      if (verdict.kind === "boots" && verdict.remarks.length === 0) continue;
      const lacks =
        verdict.kind === "cannot" ? verdict.missing : verdict.kind === "initramfs" ? verdict.because : [];
      throw new Error(
        [`${root} on ${machine}: ${verdict.kind}`, ...lacks.map(describeLack), ...verdict.remarks].join("; "),
      );
    }
  }
}

check(process.argv[2] ?? "").catch((error: unknown) => {
  console.error(String(error));
  process.exitCode = 1;
});
