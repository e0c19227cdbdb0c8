/** What AgentFs and NfsExport share as resources: where the server listens, what is told of it, the root as a MicroVm takes it. */

import * as pulumi from "@pulumi/pulumi";

import { confirmExport } from "../provider/exports/paths.js";
import { confirmWhenSaved } from "./confirm.js";
import { propertiesOf } from "./context.js";
import { providerOfStack } from "./pointer.js";

/** Arguments of every export resource. */
export interface ExportArgs {
  /**
   * Where the server listens: `"127.0.0.1"` (default), which guests on QEMU's user network reach; `"bridge"`, the address of the bridge
   * of Cloud Hypervisor's guests; or an IPv4 address of this host. Whoever reaches the server of an AgentFs can read and write the root.
   */
  bind?: pulumi.Input<string>;
  /** The bridge that `bind: "bridge"` means. Default: that of the VMs. */
  network?: pulumi.Input<ExportNetworkArgs>;
  /** TCP port of NFS. Default: an even one from 20000 to 29998, the same in every preview. */
  port?: pulumi.Input<number>;
}

/** The network whose bridge an export is bound to, as the VMs on it have it. */
export interface ExportNetworkArgs {
  /** Name of the bridge; made where it is not there. Default: `"microvm0"`. */
  bridge?: pulumi.Input<string>;
  /** IPv4 network of the bridge in CIDR form. Default: `"10.20.1.1/16"`. */
  subnet?: pulumi.Input<string>;
}

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

/** Outputs: all that the provider adds to the arguments of every export resource. */
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

/** Which export resource it is. */
interface ExportKind {
  /** Its type token. */
  readonly type: string;
  /** What points at its provider: see pointer.ts. */
  readonly provider: string;
  /** Names of outputs that the others do not have. */
  readonly outputs?: readonly string[];
}

/** A root file system of this host, served over NFS by a process that outlives `pulumi`. */
export abstract class ExportResource extends pulumi.CustomResource {
  /** IPv4 address of the server. */
  declare readonly nfsServer: pulumi.Output<string>;
  /** TCP port of NFS. */
  declare readonly nfsPort: pulumi.Output<number>;
  /** Path of the export: `"/"` of an AgentFs, that of the folder of an NfsExport. */
  declare readonly nfsPath: pulumi.Output<string>;
  /** TCP port of MOUNT: of an AgentFs, that of NFS. */
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

  protected constructor(
    { type, provider, outputs = [] }: ExportKind,
    name: string,
    inputs: object,
    opts: pulumi.CustomResourceOptions,
  ) {
    const registration = { type, name, parent: opts.parent, outputs: [...outputNames, ...outputs], provider };
    super(type, name, propertiesOf(inputs, registration), {
      ...opts,
      provider: opts.provider ?? providerOfStack(),
      // Two servers would listen on one port, and tear one database.
      deleteBeforeReplace: true,
    });
    const { nfsServer, nfsPort, nfsPath, nfsMountPort, id } = this;
    this.root = { nfsServer, nfsPort, nfsPath, nfsMountPort, nfsExport: id };
    confirmWhenSaved(this, this.stateDirectory, async (saved, stateDirectory) => {
      const [served, instance] = saved.split("/");
      if (stateDirectory === undefined || served === undefined || instance === undefined) return;
      await confirmExport(stateDirectory, served, instance);
    });
  }
}
