/** The MicroVm resource: its outputs, and how it is registered. */

import * as pulumi from "@pulumi/pulumi";
import { confirm } from "../provider/host/confirm.js";
import { settle } from "../provider/host/intent.js";
import { defaultStateDirectory } from "../provider/host/state-directory.js";
import { derivedNames } from "../provider/spec/checked.js";
import { configuredInputs } from "./config.js";
import { confirmWhenSaved } from "./confirm.js";
import { propertiesOf } from "./context.js";
import type { ArrakisBackendArgs, MicroVmArgs } from "./microvm-args.js";
import { microVmProvider, providerOfStack } from "./pointer.js";
import { pauseTraces, withTrace } from "./traces.js";

/** A block device of the guest; the first is `/dev/vda`. */
export interface DiskOutput {
  path: string;
  readonly?: boolean;
  numQueues: number;
}

/** The `backend` of a VM, its values known. */
export interface BackendOutput {
  readonly type: "qemu" | "cloud-hypervisor" | "arrakis";
  readonly url?: string;
  readonly token?: string;
  readonly caFile?: string;
}

/** Outputs: all that the provider adds to the arguments, and the two of them that other functions read. */
const outputNames = [
  "vmName",
  "backend",
  "cmdline",
  "disks",
  "kernelSha256",
  "initramfsSha256",
  "state",
  "rootEvidence",
  "guestIp",
  "consoleLog",
  "stateDirectory",
  "hostId",
  "accelerator",
  "pid",
  "requested",
] as const;

/**
 * A microVM. When it is created, its guest has proved that it runs from the root that the plan named.
 *
 * A replacement deletes the old VM first, since two guests on one writable root destroy it;
 * `deleteBeforeReplace: false` opts into the other order where old and new share nothing.
 */
export class MicroVm extends pulumi.CustomResource {
  /** Type token of the resource. */
  static readonly type = "microvm:index:MicroVm";

  /** Name of the VM on its host. */
  declare readonly vmName: pulumi.Output<string>;
  /** The back end as it was given; absent for the default. */
  declare readonly backend: pulumi.Output<BackendOutput | undefined>;
  /** The kernel command line that was booted, to the letter; absent where a server does not tell it. */
  declare readonly cmdline: pulumi.Output<string | undefined>;
  /** The guest's block devices, in its order; absent where a server does not tell them. */
  declare readonly disks: pulumi.Output<DiskOutput[] | undefined>;
  /** SHA-256 of the kernel image that was booted; absent on a server, like all that is only on this host. */
  declare readonly kernelSha256: pulumi.Output<string | undefined>;
  /** SHA-256 of the initramfs that was booted, if there was one. */
  declare readonly initramfsSha256: pulumi.Output<string | undefined>;
  /** What was found when the resource was last created, updated or refreshed. */
  declare readonly state: pulumi.Output<"running" | "paused" | "stopped" | "damaged">;
  /**
   * `"proved"` when the guest has shown that it runs on the named root; `"restored"` when it had shown that before the snapshot that it
   * was restored from; `"stale"` when the NFS server does not know the guest's root any more, and the next `up` makes the VM anew;
   * `"none"` when it is off; `"unverified"` when it runs on a server and could not be asked.
   */
  declare readonly rootEvidence: pulumi.Output<"proved" | "restored" | "stale" | "none" | "unverified">;
  /** IPv4 address of the guest on its link. */
  declare readonly guestIp: pulumi.Output<string>;
  /** Absolute path of the guest's console log on this host; absent on a server. */
  declare readonly consoleLog: pulumi.Output<string | undefined>;
  /** Absolute path of the state directory that holds the VM; absent on a server. */
  declare readonly stateDirectory: pulumi.Output<string | undefined>;
  /** Which host the VM is on; absent on a server. */
  declare readonly hostId: pulumi.Output<string | undefined>;
  /** What runs the guest's instructions, while it runs. */
  declare readonly accelerator: pulumi.Output<"kvm" | "tcg" | undefined>;
  /** Process id of the VMM, while it runs. */
  declare readonly pid: pulumi.Output<number | undefined>;
  /** vCPUs and memory that were asked of the guest while it runs; only the guest itself can tell whether it uses them. */
  declare readonly requested: pulumi.Output<{ vcpus?: number; memoryMiB?: number } | undefined>;

  /** Looks up an existing VM by its Pulumi id, `<vmName>/<instance>`. */
  static get(name: string, id: pulumi.Input<pulumi.ID>, opts?: pulumi.CustomResourceOptions): MicroVm {
    return new MicroVm(name, {}, { ...opts, id });
  }

  // oxlint-disable-next-line no-this-before-super -- where super() throws, the constructor is left by that error
  constructor(name: string, args: MicroVmArgs, opts: pulumi.CustomResourceOptions = {}) {
    refuseOutputs(name, args);
    const given = { ...args, ...configuredInputs(args) };
    const inputs = {
      ...given,
      ...(given.backend === undefined ? {} : { backend: withSecretToken(given.backend) }),
    };
    const registration = {
      type: MicroVm.type,
      name,
      parent: opts.parent,
      outputs: outputNames,
      provider: microVmProvider,
    };
    const properties = {
      ...propertiesOf(inputs, registration),
      ...(opts.deleteBeforeReplace === false ? { createFirst: true } : {}),
    };
    const options: pulumi.CustomResourceOptions = {
      ...opts,
      provider: opts.provider ?? providerOfStack(),
      // The provider's own answer is not asked for on --replace or a taint.
      deleteBeforeReplace: opts.deleteBeforeReplace ?? true,
    };
    const resumeTraces = pauseTraces();
    try {
      super(MicroVm.type, name, properties, options);
    } catch (error) {
      throw withTrace(error);
    } finally {
      resumeTraces();
    }
    const { stateDirectory, backend } = this;
    confirmWhenSaved(this, { stateDirectory, backend }, async (id, known) => {
      const [vmName, instance] = id.split("/");
      if (vmName === undefined || instance === undefined) return;
      const url = known.backend?.url;
      if (url !== undefined) await settle(defaultStateDirectory(), url, vmName, instance);
      else if (known.stateDirectory !== undefined) await confirm(known.stateDirectory, vmName, instance);
    });
  }
}

/** What the provider derives cannot be given: the engine itself feeds such values back under `ignoreChanges`. */
function refuseOutputs(name: string, args: object): void {
  const derived: ReadonlySet<string> = new Set(
    [...outputNames, ...derivedNames].filter((key) => key !== "vmName" && key !== "backend"),
  );
  const given = Object.keys(args).filter((key) => derived.has(key));
  if (given.length === 0) return;
  throw new pulumi.RunError(
    `${name}: ${given.join(", ")}: expected no value for what the provider derives; leave it out`,
  );
}

/** The token of a server is a secret, whether the program says so or not. */
function withSecretToken(backend: unknown): unknown {
  if (typeof backend !== "object" || backend === null || pulumi.Output.isInstance(backend)) return backend;
  const { token } = backend as Partial<ArrakisBackendArgs>;
  return token === undefined ? backend : { ...backend, token: pulumi.secret(token) };
}
