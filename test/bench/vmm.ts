/** Create on Cloud Hypervisor, up to the answer to vm.boot, against a shell script; many VMs at once against one. */

import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

import { namespaceEnvironment, whyNoNamespace } from "../lab/namespace.js";
import { cloudHypervisorBinary, isOnPath } from "../lab/programs.js";
import { compared, type Figure } from "./figures.js";
import type { VmmSamples } from "./vmm-process.js";

const run = promisify(execFile);

const CREATE_LIMIT = 1.15;
const MANY = 32;

/** How much is measured. */
export interface VmmBench {
  /** Creates and scripts, in turn. */
  readonly pairs: number;
  readonly say: (text: string) => void;
}

/** No figures, and the reason, where Cloud Hypervisor or the right to make taps is missing. */
export async function benchVmm({ pairs, say }: VmmBench): Promise<Figure[]> {
  const binary = cloudHypervisorBinary();
  const reason =
    binary === undefined
      ? "there is no cloud-hypervisor on PATH, and CLOUD_HYPERVISOR is not set"
      : (whyNoNamespace() ?? (isOnPath("curl") ? undefined : "curl is not installed"));
  if (reason !== undefined) {
    say(`vmm: left out: ${reason}`);
    return [];
  }
  const order = JSON.stringify({ binary, pairs, many: MANY });
  const program = join(__dirname, "vmm-process.ts");
  const args = ["--net", process.execPath, "--import", "tsx", program, order];
  const { stdout } = await run("unshare", args, { env: namespaceEnvironment() });
  const samples = JSON.parse(stdout) as VmmSamples;
  return [
    compared(
      "create to vm.boot, Cloud Hypervisor",
      "s",
      { name: "shell and curl", samples: samples.script },
      samples.ours,
      { of: "ratio", limit: CREATE_LIMIT },
    ),
    compared(`${MANY} VMs at once, Cloud Hypervisor`, "s", { name: "one VM", samples: [samples.one] }, [
      samples.all,
    ]),
    {
      name: `provider holding ${MANY} VMs`,
      unit: "MiB",
      ours: { value: samples.memoryMiB, samples: [samples.memoryMiB] },
    },
  ];
}
