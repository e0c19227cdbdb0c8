/** The NfsExport resource: its arguments, its outputs, their documentation. */

import type * as pulumi from "@pulumi/pulumi";
import { type ExportArgs, ExportResource } from "./export-resource.js";
import { nfsExportProvider } from "./pointer.js";

/** Arguments of an {@link NfsExport}. */
export interface NfsExportArgs extends ExportArgs {
  /** Absolute path of the folder that holds the root file system. It stays when the resource goes. */
  directory: pulumi.Input<string>;
  /** TCP port of MOUNT, another one. Default: the one after `port`. */
  mountPort?: pulumi.Input<number>;
  /** Whether nothing can be written. Default: false. */
  readOnly?: pulumi.Input<boolean>;
  /** Whose rights clients have: `"none"` (default): their own, root's among them; `"root"`: root is nobody; `"all"`: all are. */
  squash?: pulumi.Input<"none" | "root" | "all">;
  /**
   * IPv4 addresses and networks that may mount. Default: this host, which guests on QEMU's user network are to it, and with
   * `bind: "bridge"` the bridge's network.
   */
  allowedClients?: pulumi.Input<pulumi.Input<string>[]>;
}

/**
 * A folder of this host served over NFS by nfs-ganesha: the root file system of a {@link MicroVm}. It takes root.
 *
 * The server is a process of this host that outlives `pulumi`. It is started again in place when it has ended: guests wait for it, and
 * go on.
 */
export class NfsExport extends ExportResource {
  /** Type token of the resource. */
  static readonly type = "microvm:index:NfsExport";

  constructor(name: string, args: NfsExportArgs, opts: pulumi.CustomResourceOptions = {}) {
    super({ type: NfsExport.type, provider: nfsExportProvider }, name, args, opts);
  }
}
