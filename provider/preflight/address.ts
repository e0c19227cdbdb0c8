/** nfsroot= takes an IPv4 address: what a server's name stands for now. */

import { lookup } from "node:dns/promises";
import { isIPv4 } from "node:net";
import { MicroVmError, systemCodeOf } from "../errors.js";

const resolved = new Map<string, Promise<readonly string[]>>();

/**
 * The IPv4 address of a server, asked for once per name and process. The address in use stays while the name still
 * lists it, so that a rotating list replaces no VM.
 *
 * @throws MicroVmError `nfs-unreachable`, input `nfsServer`, when the name stands for no IPv4 address.
 */
export async function resolveServer(server: string, inUse: string | undefined): Promise<string> {
  if (isIPv4(server)) return server;
  let addresses = resolved.get(server);
  if (addresses === undefined) {
    addresses = addressesOf(server);
    resolved.set(server, addresses);
  }
  const list = await addresses;
  const [first] = list;
  if (first === undefined) throw unresolvable(server, "no IPv4 address");
  return inUse !== undefined && list.includes(inUse) ? inUse : first;
}

async function addressesOf(server: string): Promise<readonly string[]> {
  try {
    return (await lookup(server, { family: 4, all: true })).map(({ address }) => address);
  } catch (error) {
    throw unresolvable(server, systemCodeOf(error) ?? String(error), error);
  }
}

function unresolvable(server: string, found: string, cause?: unknown): MicroVmError {
  return new MicroVmError(
    "nfs-unreachable",
    `expected a name with an IPv4 address, got "${server}" (${found}): correct it, or give the address`,
    { input: "nfsServer", cause },
  );
}
