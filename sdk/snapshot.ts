/** The MicroVmSnapshot resource: its arguments, its outputs, their documentation. */

import * as pulumi from "@pulumi/pulumi";
import { confirmSnapshot } from "../provider/host/confirm-snapshot.js";
import { confirmWhenSaved } from "./confirm.js";
import { propertiesOf } from "./context.js";
import type { MicroVm } from "./microvm.js";
import { providerOfStack, snapshotProvider } from "./pointer.js";

/** Arguments of a {@link MicroVmSnapshot}. */
export interface MicroVmSnapshotArgs {
  /** The VM that the snapshot is taken of: on the back end `cloud-hypervisor` or `arrakis`, and running or paused. */
  vm: MicroVm;
  /** Any text; another one takes another snapshot, and the old one goes. Default: none. */
  trigger?: pulumi.Input<string>;
}

/** Outputs: all that the provider adds. */
const outputNames = ["snapshotId", "vmName", "takenAt", "hostId"] as const;

/**
 * A snapshot of a running VM: its memory, the state of its devices, and its stateful disk. The guest stands still while it is taken, and
 * runs on afterwards.
 *
 * A snapshot is taken once. It outlives its VM, and stays as it is when the program makes the VM anew. Its root is not in it: see
 * `acceptStaleRoot` of {@link MicroVm}.
 */
export class MicroVmSnapshot extends pulumi.CustomResource {
  /** Type token of the resource. */
  static readonly type = "microvm:index:MicroVmSnapshot";

  /** What `snapshotId` of a {@link MicroVm} takes; the Pulumi id as well. */
  declare readonly snapshotId: pulumi.Output<string>;
  /** Pulumi id of the VM that it was taken of, `<vmName>/<instance>`. */
  declare readonly vmId: pulumi.Output<string>;
  /** Name of the VM that it was taken of: a VM that is restored from it must have it. */
  declare readonly vmName: pulumi.Output<string>;
  /** When it was taken, ISO 8601. */
  declare readonly takenAt: pulumi.Output<string>;
  /** Absolute path of the state directory that holds it; absent on a server. */
  declare readonly stateDirectory: pulumi.Output<string | undefined>;
  /** Which host it is on; absent on a server. */
  declare readonly hostId: pulumi.Output<string | undefined>;

  constructor(name: string, args: MicroVmSnapshotArgs, opts: pulumi.CustomResourceOptions = {}) {
    const { vm, trigger } = args;
    // Of a VM on a server, the server keeps the snapshot.
    const backend = pulumi
      .output(vm.backend)
      .apply((given) => (given?.type === "arrakis" ? given : undefined));
    const properties = {
      ...propertiesOf(
        { trigger },
        {
          type: MicroVmSnapshot.type,
          name,
          parent: opts.parent,
          outputs: outputNames,
          provider: snapshotProvider,
        },
      ),
      vmId: vm.id,
      stateDirectory: vm.stateDirectory,
      backend,
    };
    super(MicroVmSnapshot.type, name, properties, { ...opts, provider: opts.provider ?? providerOfStack() });
    confirmWhenSaved(this, this.stateDirectory, async (id, stateDirectory) => {
      if (stateDirectory !== undefined) await confirmSnapshot(stateDirectory, id);
    });
  }
}
