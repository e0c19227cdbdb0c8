/** The AgentFs resource: its arguments, its outputs, their documentation. */

import * as pulumi from "@pulumi/pulumi";
import { ownerOf, secretsOf } from "./context.js";
import { confirmWhenSaved, type ExportNetworkArgs, type ExportRoot, rootOf } from "./export-root.js";
import { agentFsProvider, providerOfStack } from "./pointer.js";

/** Arguments of an {@link AgentFs}. */
export interface AgentFsArgs {
  /** Id of the database, as `agentfs` itself takes it: `.agentfs/ID.db` in the program's folder. Either this or `databasePath`. */
  id?: pulumi.Input<string>;
  /** Absolute path of the database. Either this or `id`. */
  databasePath?: pulumi.Input<string>;
  /** Absolute path of a root file system on this host: a new database is a copy-on-write overlay of it. Needed where there is no database yet. */
  baseDirectory?: pulumi.Input<string>;
  /**
   * Where the server listens: `"127.0.0.1"` (default), which guests on QEMU's user network reach; `"bridge"`, the address of the bridge
   * of Cloud Hypervisor's guests; or an IPv4 address of this host. Whoever reaches it can read and write the root.
   */
  bind?: pulumi.Input<string>;
  /** The bridge that `bind: "bridge"` means. Default: that of the VMs. */
  network?: pulumi.Input<ExportNetworkArgs>;
  /** TCP port. Default: one from 20000 to 29998 that follows from the resource's URN and the state directory, so that a preview knows it. */
  port?: pulumi.Input<number>;
  /** Key of an encrypted database in hex digits: a secret. Needs a release of AgentFS that serves such a database; 0.6.4 does not. */
  key?: pulumi.Input<string>;
  /** Cipher of an encrypted database: `"aegis256"`, `"aes256gcm"` … */
  cipher?: pulumi.Input<string>;
  /** Whether the database goes with the resource, also when that is replaced. Default: false. */
  deleteDatabase?: pulumi.Input<boolean>;
  /** Absolute path of the program. Default: `$AGENTFS`, else `agentfs` on PATH. */
  binary?: pulumi.Input<string>;
}

/** Outputs: all that the provider adds to the arguments. */
const outputNames = [
  "databasePath",
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
 * An AgentFS database served over NFS: the root file system of a {@link MicroVm}, in which everything that the guest does is recorded.
 *
 * The server is a process of this host that outlives `pulumi`. AgentFS' file handles end with it: a server that is made anew, for
 * whatever reason, takes its VMs with it, since their roots are dead.
 */
export class AgentFs extends pulumi.CustomResource {
  /** Type token of the resource. */
  static readonly type = "microvm:index:AgentFs";

  /** Absolute path of the database. */
  declare readonly databasePath: pulumi.Output<string>;
  /** IPv4 address of the server. */
  declare readonly nfsServer: pulumi.Output<string>;
  /** TCP port of the server. */
  declare readonly nfsPort: pulumi.Output<number>;
  /** Path of the export: `"/"`. */
  declare readonly nfsPath: pulumi.Output<string>;
  /** TCP port of mountd: the server's own. */
  declare readonly nfsMountPort: pulumi.Output<number>;
  /** What was found when the resource was last created or refreshed. */
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

  constructor(name: string, args: AgentFsArgs, opts: pulumi.CustomResourceOptions = {}) {
    const { id, ...rest } = args;
    // `id` is every resource's own output, so it goes by another name.
    const inputs = { ...rest, agentId: id };
    const properties = {
      ...Object.fromEntries(outputNames.map((output) => [output, undefined])),
      ...inputs,
      key: args.key === undefined ? undefined : pulumi.secret(args.key),
      owner: ownerOf(AgentFs.type, name, opts.parent),
      secretInputs: secretsOf(inputs),
      __provider: agentFsProvider,
    };
    super(AgentFs.type, name, properties, {
      ...opts,
      provider: opts.provider ?? providerOfStack(),
      // Two servers on one database would tear it.
      deleteBeforeReplace: true,
      additionalSecretOutputs: [...(opts.additionalSecretOutputs ?? []), "key"],
    });
    this.root = rootOf(this);
    confirmWhenSaved(this);
  }
}
