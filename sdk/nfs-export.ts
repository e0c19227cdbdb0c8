/** The NfsExport resource: its arguments, its outputs, their documentation. */

import * as pulumi from "@pulumi/pulumi";
import { ownerOf, secretsOf } from "./context.js";
import { confirmWhenSaved, type ExportNetworkArgs, type ExportRoot, rootOf } from "./export-root.js";
import { nfsExportProvider, providerOfStack } from "./pointer.js";

/** Arguments of an {@link NfsExport}. */
export interface NfsExportArgs {
  /** Absolute path of the folder that holds the root file system. It stays when the resource goes. */
  directory: pulumi.Input<string>;
  /**
   * Where the server listens: `"127.0.0.1"` (default), which guests on QEMU's user network reach; `"bridge"`, the address of the bridge
   * of Cloud Hypervisor's guests; or an IPv4 address of this host.
   */
  bind?: pulumi.Input<string>;
  /** The bridge that `bind: "bridge"` means. Default: that of the VMs. */
  network?: pulumi.Input<ExportNetworkArgs>;
  /** TCP port of NFS. Default: one from 20000 to 29998 that follows from the resource's URN and the state directory, so that a preview knows it. */
  port?: pulumi.Input<number>;
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

/** Outputs: all that the provider adds to the arguments. */
const outputNames = [
  "nfsServer",
  "nfsPort",
  "nfsPath",
  "nfsMountPort",
  "state",
  "pid",
  "log",
  "stateDirectory",
  "hostId",
] as const;

/**
 * A folder of this host served over NFS by nfs-ganesha: the root file system of a {@link MicroVm}. It takes root.
 *
 * The server is a process of this host that outlives `pulumi`. It is started again in place when it has ended: guests wait for it, and
 * go on.
 */
export class NfsExport extends pulumi.CustomResource {
  /** Type token of the resource. */
  static readonly type = "microvm:index:NfsExport";

  /** IPv4 address of the server. */
  declare readonly nfsServer: pulumi.Output<string>;
  /** TCP port of NFS. */
  declare readonly nfsPort: pulumi.Output<number>;
  /** Path of the export: that of the folder. */
  declare readonly nfsPath: pulumi.Output<string>;
  /** TCP port of MOUNT. */
  declare readonly nfsMountPort: pulumi.Output<number>;
  /** What was found when the resource was last created, updated or refreshed. */
  declare readonly state: pulumi.Output<"running" | "stopped" | "damaged">;
  /** Process id of the server, while it runs. */
  declare readonly pid: pulumi.Output<number | undefined>;
  /** Absolute path of what the server prints. */
  declare readonly log: pulumi.Output<string>;
  /** Absolute path of the state directory that holds the server's record. */
  declare readonly stateDirectory: pulumi.Output<string>;
  /** Which host the server is on. */
  declare readonly hostId: pulumi.Output<string>;

  /** The root that it serves, to be spread into the arguments of a MicroVm. */
  readonly root: ExportRoot;

  constructor(name: string, args: NfsExportArgs, opts: pulumi.CustomResourceOptions = {}) {
    const properties = {
      ...Object.fromEntries(outputNames.map((output) => [output, undefined])),
      ...args,
      owner: ownerOf(NfsExport.type, name, opts.parent),
      secretInputs: secretsOf(args),
      __provider: nfsExportProvider,
    };
    super(NfsExport.type, name, properties, {
      ...opts,
      provider: opts.provider ?? providerOfStack(),
      // Both would listen on one port.
      deleteBeforeReplace: true,
    });
    this.root = rootOf(this);
    confirmWhenSaved(this);
  }
}
