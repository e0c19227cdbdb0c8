/** The AgentFs resource: its arguments, its outputs, their documentation. */

import * as pulumi from "@pulumi/pulumi";
import { type ExportArgs, ExportResource } from "./export-resource.js";
import { agentFsProvider } from "./pointer.js";

/** Arguments of an {@link AgentFs}. */
export interface AgentFsArgs extends ExportArgs {
  /** Id of the database, as `agentfs` itself takes it: `.agentfs/ID.db` in the program's folder. Either this or `databasePath`. */
  id?: pulumi.Input<string>;
  /** Absolute path of the database. Either this or `id`. */
  databasePath?: pulumi.Input<string>;
  /** Absolute path of a root file system on this host: a new database is a copy-on-write overlay of it. Needed where there is no database yet. */
  baseDirectory?: pulumi.Input<string>;
  /** Key of an encrypted database in hex digits: a secret. Needs a release of AgentFS that serves such a database; 0.6.4 does not. */
  key?: pulumi.Input<string>;
  /** Cipher of an encrypted database: `"aegis256"`, `"aes256gcm"` … */
  cipher?: pulumi.Input<string>;
  /** Whether the database goes with the resource, also when that is replaced. Default: false. */
  deleteDatabase?: pulumi.Input<boolean>;
  /** Absolute path of the program. Default: `$AGENTFS`, else `agentfs` on PATH. */
  binary?: pulumi.Input<string>;
}

/**
 * An AgentFS database served over NFS: the root file system of a {@link MicroVm}, in which everything that the guest does is recorded.
 *
 * The server is a process of this host that outlives `pulumi`. AgentFS' file handles end with it: a server that is made anew, for
 * whatever reason, takes its VMs with it, since their roots are dead.
 */
export class AgentFs extends ExportResource {
  /** Type token of the resource. */
  static readonly type = "microvm:index:AgentFs";

  /** Absolute path of the database. */
  declare readonly databasePath: pulumi.Output<string>;

  constructor(name: string, args: AgentFsArgs, opts: pulumi.CustomResourceOptions = {}) {
    const { id, key, ...rest } = args;
    // `id` is every resource's own output, so it goes by another name.
    const inputs = { ...rest, agentId: id, ...(key === undefined ? {} : { key: pulumi.secret(key) }) };
    super({ type: AgentFs.type, provider: agentFsProvider, outputs: ["databasePath"] }, name, inputs, {
      ...opts,
      additionalSecretOutputs: [...(opts.additionalSecretOutputs ?? []), "key"],
    });
  }
}
