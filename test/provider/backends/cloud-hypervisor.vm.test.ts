import { describe, expect, it } from "vitest";

import { cloudHypervisor, programOf } from "../../../provider/backends/cloud-hypervisor/cloud-hypervisor.js";
import { localBackend } from "../../../provider/backends/local/local.js";
import { isInNamespace, runInNamespace, whyNoNamespace } from "../../lab/namespace.js";
import { cloudHypervisorBinary } from "../../lab/programs.js";
import { testCloudHypervisor } from "./cloud-hypervisor/own.js";
import { testLocalBackend } from "./contract.js";

const binary = cloudHypervisorBinary();
const reason =
  binary === undefined
    ? "cloud-hypervisor is not on PATH, and CLOUD_HYPERVISOR is not set"
    : whyNoNamespace();
const title = "cloud-hypervisor";

/** Without the look at KVM: that of a host which is itself a guest runs no Linux, but the guests of this lab. */
const vmm = { ...cloudHypervisor, find: () => Promise.resolve(programOf(binary ?? "")) };

if (reason !== undefined) {
  describe(title, () => it.skip(`skipped: ${reason}`, () => undefined));
} else if (isInNamespace()) {
  const scripted = { type: "cloud-hypervisor", binary } as const;
  testLocalBackend(title, { backend: localBackend(vmm), scripted });
  testCloudHypervisor(localBackend(vmm), scripted);
} else {
  it(`${title}: the contract of local back ends, in a network namespace of its own`, () => {
    expect(runInNamespace(__filename)).toBe(0);
  });
}
