/**
 * An export at the bridge's address, from before the first VM to its end, in a network of its own. Its arguments: the type, the inputs as
 * JSON, the host's address on a cable, and the command line of somebody else at the other end of it, who probes meanwhile.
 */

import { execFileSync, spawnSync } from "node:child_process";

import * as agentFs from "../../../provider/agentfs.js";
import { interfaceNames } from "../../../provider/host/network/links.js";
import * as nfs from "../../../provider/nfs.js";
import { probeNfs } from "../../../provider/preflight/nfs/index.js";

const print = (command: string, ...words: readonly string[]): string =>
  execFileSync(command, words, { encoding: "utf8" }).trim();

/** Everything of an export that could be left: interfaces, rules, and whether its process is there. */
const seen = (pid: unknown) => ({
  interfaces: interfaceNames(),
  // Without CAP_NET_ADMIN it shows none.
  rules: spawnSync("nft", ["list", "ruleset"], { encoding: "utf8" }).stdout.trim(),
  isServed: isThere(Number(pid)),
});

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false; // ESRCH: it has ended
  }
}

async function run(type: string, given: string, address: string, others: readonly string[]): Promise<void> {
  const { check, create, delete: remove } = type === "AgentFs" ? agentFs : nfs;
  const urn = `urn:pulumi:dev::shop::microvm:index:${type}::files`;
  const owner = { organization: "organization", urn, program: "/" };
  const { inputs, failures } = await check({}, { ...JSON.parse(given), bind: "bridge", owner });
  if (failures.length > 0) throw new Error(JSON.stringify(failures));
  const { id, outs } = await create(inputs);
  const target = {
    server: String(inputs["nfsServer"]),
    port: Number(inputs["nfsPort"]),
    mountPort: Number(inputs["nfsMountPort"]),
    path: String(inputs["nfsPath"]),
  };
  const [program = "", ...words] = others;
  const outside = (server: string) => print(program, ...words, JSON.stringify({ ...target, server }));
  const result = {
    previewed: target.server,
    atBridge: (await probeNfs(target)).kind,
    atLoopback: (await probeNfs({ ...target, server: "127.0.0.1" })).kind,
    fromOutside: outside(address),
    /** As one who knows the way: Linux answers for each of its addresses on every interface. */
    fromOutsideByRoute: outside(target.server),
    meanwhile: seen(outs["pid"]),
  };
  await remove(id, outs);
  process.stdout.write(`result ${JSON.stringify({ ...result, afterwards: seen(outs["pid"]) })}\n`);
}

const [, , type = "", inputs = "", address = "", ...others] = process.argv;
void run(type, inputs, address, others);
