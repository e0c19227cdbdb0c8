/** Cloud Hypervisor as the hypervisor of a local VM. */

import { MicroVmError } from "../../errors.js";
import type { Vmm, VmmControl, VmmProgram } from "../local/vmm.js";

export const cloudHypervisor: Vmm = {
  name: "Cloud Hypervisor",

  async find(): Promise<VmmProgram> {
    throw new MicroVmError("not-supported", "the cloud-hypervisor back end is not finished yet", {
      input: "backend",
    });
  },

  async connect(controlSocket: string): Promise<VmmControl> {
    throw new MicroVmError("vmm-failed", `nobody answers at ${controlSocket}`);
  },
};
