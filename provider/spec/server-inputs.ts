/** The checked inputs of a VM on a server, and what the server is told of them. Pure. */

import type { ArrakisBackend, Owner, RunSettings, ServerVm } from "../backends/backend.js";
import { generatedName, rootDigest } from "./identity.js";
import type { InputValues } from "./schema.js";
import { valueAt } from "./validate.js";

/** The inputs of a MicroVm on a server after check. What the server decides is absent. */
export interface CheckedServerInputs extends Omit<InputValues, "backend" | keyof RunSettings>, RunSettings {
  readonly vmName: string;
  readonly backend: ArrakisBackend;
  readonly owner: Owner;
}

/** Whether inputs or outputs are those of a VM on a server. */
export function isOnServer(values: Readonly<Record<string, unknown>>): boolean {
  return valueAt(values["backend"], ["type"]) === "arrakis";
}

/** Inputs that stand in the request as they are. */
const sent = [
  "vmName",
  "kernel",
  "initramfs",
  "rootfs",
  "entryPoint",
  "snapshotId",
  "useNfsRoot",
  "nfsServer",
  "nfsPort",
  "nfsPath",
  "nfsMountPort",
  "nfsOptions",
  "kernelArgs",
  "guestAccess",
  "acceptStaleRoot",
] as const satisfies readonly (keyof InputValues & keyof ServerVm["start"])[];

/** What the server is told. */
export function serverVmOf(inputs: CheckedServerInputs): ServerVm {
  const { vmName, owner, powerState, readiness, shutdownTimeoutSeconds } = inputs;
  const given = sent.filter((name) => inputs[name] !== undefined);
  return {
    start: Object.fromEntries(given.map((name) => [name, inputs[name]])),
    settings: { powerState, readiness, shutdownTimeoutSeconds },
    isNameGenerated:
      vmName === generatedName(owner.urn) || vmName === generatedName(owner.urn, rootDigest({ ...inputs })),
  };
}
