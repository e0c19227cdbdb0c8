/** What the export resources share: their root as a MicroVm takes it, and the note that the engine has saved them. */

import * as pulumi from "@pulumi/pulumi";
import { confirmExport } from "../provider/exports/paths.js";
import { noticeText } from "../provider/notices.js";

/**
 * A root file system as arguments of a `MicroVm`: `new MicroVm("vm", { ...export.root, useNfsRoot: true, kernel })`. `nfsExport` ties
 * the VM to the server: where that is made anew, so is the VM.
 */
export interface ExportRoot {
  readonly nfsServer: pulumi.Output<string>;
  readonly nfsPort: pulumi.Output<number>;
  readonly nfsPath: pulumi.Output<string>;
  readonly nfsMountPort: pulumi.Output<number>;
  readonly nfsExport: pulumi.Output<string>;
}

/** The network whose bridge an export is bound to, as the VMs on it have it. */
export interface ExportNetworkArgs {
  /** Name of the bridge; made where it is not there. Default: `"microvm0"`. */
  bridge?: pulumi.Input<string>;
  /** IPv4 network of the bridge in CIDR form. Default: `"10.20.1.1/16"`. */
  subnet?: pulumi.Input<string>;
}

/** An export resource, as far as its root goes. */
interface Served extends pulumi.CustomResource {
  readonly nfsServer: pulumi.Output<string>;
  readonly nfsPort: pulumi.Output<number>;
  readonly nfsPath: pulumi.Output<string>;
  readonly nfsMountPort: pulumi.Output<number>;
  readonly stateDirectory: pulumi.Output<string>;
}

/** The root that a resource serves. */
export function rootOf({ nfsServer, nfsPort, nfsPath, nfsMountPort, id }: Served): ExportRoot {
  return { nfsServer, nfsPort, nfsPath, nfsMountPort, nfsExport: id };
}

/** When the id is there, the engine has saved the resource: from now on it is no leftover of a killed up. */
export function confirmWhenSaved(served: Served): void {
  if (pulumi.runtime.isDryRun()) return;
  pulumi.all([served.id, served.stateDirectory]).apply(async ([id, stateDirectory]) => {
    const [name, instance] = (id ?? "").split("/");
    if (stateDirectory === undefined || name === undefined || instance === undefined) return;
    try {
      await confirmExport(stateDirectory, name, instance);
    } catch (error) {
      await pulumi.log.warn(noticeText("not-confirmed", { vm: name, finding: String(error) }), served);
    }
  });
}
