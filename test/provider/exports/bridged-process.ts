/**
 * An export at the bridge's address, from before the first VM to its end, in a network of its own. Its arguments: the folder to serve, and
 * the command line of somebody else who probes it meanwhile, of whom it may be known by the address.
 */

import { execFileSync } from "node:child_process";

import { interfaceNames } from "../../../provider/host/network/links.js";
import { check, create, delete as remove } from "../../../provider/nfs.js";
import { probeNfs } from "../../../provider/preflight/nfs/index.js";

async function run(directory: string, address: string, others: readonly string[]): Promise<void> {
  const urn = "urn:pulumi:dev::shop::microvm:index:NfsExport::files";
  const owner = { organization: "organization", urn, program: directory };
  const { inputs } = await check({}, { directory, bind: "bridge", owner });
  const { id, outs } = await create(inputs);
  const target = {
    server: String(outs["nfsServer"]),
    port: Number(outs["nfsPort"]),
    mountPort: Number(outs["nfsMountPort"]),
    path: directory,
  };
  const atBridge = (await probeNfs(target)).kind;
  const [program = "", ...words] = others;
  const fromOutside = execFileSync(program, [...words, JSON.stringify({ ...target, server: address })], {
    encoding: "utf8",
  }).trim();
  const meanwhile = interfaceNames();
  await remove(id, outs);
  const afterwards = interfaceNames();
  process.stdout.write(`result ${JSON.stringify({ atBridge, fromOutside, meanwhile, afterwards })}\n`);
}

const [, , directory = "", address = "", ...others] = process.argv;
void run(directory, address, others);
