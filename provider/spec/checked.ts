/**
 * The checked inputs: what check hands the engine, the preview shows, state keeps, and create boots. The spec with
 * the values that were derived from it beside it, flat, so that a person reads them as part of the resource.
 */

import type { ObservedState, Owner } from "../backends/backend.js";
import type { BootConfiguration, BootFacts, Disk } from "../boot/boot.js";
import { bootConfiguration } from "../boot/boot.js";
import { MicroVmError } from "../errors.js";
import { vmPaths } from "../host/paths.js";
import type { Spec } from "./spec.js";

/** What check adds to the spec. */
export interface DerivedInputs {
  /** The kernel command line, to the letter. */
  readonly cmdline: string;
  /** The guest's block devices, in its order. */
  readonly disks: readonly Disk[];
  /** SHA-256 of the kernel image. */
  readonly kernelSha256: string;
  /** SHA-256 of the initramfs that is booted, if one is. */
  readonly initramfsSha256?: string;
  /** Path of the initramfs that was made because the kernel has what it needs only as modules. */
  readonly generatedInitramfs?: string;
  /** SHA-256 of the root disk's image, or `size:…,mtime:…` above 1 GiB. */
  readonly rootfsDigest?: string;
  /** IPv4 address of the NFS server, as this host resolves `nfsServer`. */
  readonly nfsServerAddress?: string;
  /** Absolute path of the state directory that holds the VM. */
  readonly stateDirectory: string;
  /** What is there now; `"running" => "gone"` is how a preview shows a lost VM. */
  readonly observed: ObservedState | "unproved" | "stale" | "unknown";
}

/** Inputs that the SDK writes, not the person. */
export interface ContextInputs {
  readonly owner: Owner;
  /** Present and true when the person opted into a create-first replacement. */
  readonly createFirst?: true;
}

/** The inputs of a MicroVm after check. */
export type CheckedInputs = Spec & DerivedInputs & ContextInputs;

/** Names of what check adds; under `ignoreChanges` the engine feeds old ones back. */
export const derivedNames = [
  "cmdline",
  "disks",
  "kernelSha256",
  "initramfsSha256",
  "generatedInitramfs",
  "rootfsDigest",
  "nfsServerAddress",
  "stateDirectory",
  "observed",
] as const satisfies readonly (keyof DerivedInputs)[];

/**
 * The boot configuration of checked inputs.
 *
 * @throws MicroVmError `invalid-input` when it would not be the one that the preview showed.
 */
export function bootOf(inputs: CheckedInputs): BootConfiguration {
  const boot = bootConfiguration(inputs, factsOf(inputs));
  if (boot.cmdline !== inputs.cmdline) {
    throw new MicroVmError(
      "invalid-input",
      `expected the kernel command line of the plan, ${inputs.cmdline}, got ${boot.cmdline}; run the preview again`,
      { input: "cmdline" },
    );
  }
  return boot;
}

/** What of checked inputs the world had to tell. */
export function factsOf(inputs: CheckedInputs): BootFacts {
  const initramfs = inputs.generatedInitramfs ?? inputs.initramfs;
  return {
    kernel: { path: inputs.kernel, sha256: inputs.kernelSha256 },
    initramfs:
      initramfs === undefined || inputs.initramfsSha256 === undefined
        ? undefined
        : {
            path: initramfs,
            sha256: inputs.initramfsSha256,
            generated: inputs.generatedInitramfs !== undefined,
          },
    nfsServerAddress: inputs.nfsServerAddress,
    statefulDisk: vmPaths(inputs.stateDirectory, inputs.vmName).statefulDisk,
  };
}
