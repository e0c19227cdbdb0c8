/** A VM on a server, brought to the state that is asked for. */

import { MicroVmError } from "../../errors.js";
import type { ObservedState, RunSettings } from "../backend.js";
import type { ArrakisApi } from "./api.js";

/** How long a change may take beside the guest's own power-off, in seconds. */
const CHANGE_SECONDS = 60;

/** What is to become of a VM. */
export interface PowerChange {
  readonly vmName: string;
  readonly from: ObservedState;
  readonly settings: RunSettings;
  /** Boots a VM that is off. */
  readonly boot: () => Promise<void>;
}

/** Brings the VM to `settings.powerState`. */
export async function setPower(api: ArrakisApi, change: PowerChange): Promise<void> {
  const { vmName, from, settings, boot } = change;
  const { powerState: to, shutdownTimeoutSeconds } = settings;
  const seconds = shutdownTimeoutSeconds + CHANGE_SECONDS;
  switch (from) {
    case "running":
      if (to !== "running") await api.setState(vmName, to, seconds);
      return;
    case "paused":
      if (to === "running") await api.setState(vmName, "resume", seconds);
      if (to === "stopped") await api.setState(vmName, "stopped", seconds);
      return;
    case "stopped":
      if (to === "stopped") return;
      await boot();
      if (to === "paused") await api.setState(vmName, "paused", seconds);
      return;
    case "gone":
    case "damaged":
      throw new MicroVmError(
        "server-failed",
        `the VM ${vmName} is ${from} on the server; run \`pulumi up\` again to make it anew`,
      );
    default:
      return from satisfies never;
  }
}
