/** An export at the bridge's address, from before the first VM to its end, in a network of its own. Its argument: the folder to serve. */

import { interfaceNames } from "../../../provider/host/network/links.js";
import { check, create, delete as remove } from "../../../provider/nfs.js";
import { probeNfs } from "../../../provider/preflight/nfs/index.js";

async function run(directory: string): Promise<void> {
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
  const meanwhile = interfaceNames();
  await remove(id, outs);
  const afterwards = interfaceNames();
  process.stdout.write(`result ${JSON.stringify({ atBridge, meanwhile, afterwards })}\n`);
}

void run(process.argv[2] ?? "");
