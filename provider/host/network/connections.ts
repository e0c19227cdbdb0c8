/** Connections that this host still has with a guest that is no more. */

import { run } from "./command.js";

/**
 * Ends every TCP connection of this host with an address, that of an NFS server of this host among them. Called when a guest of that
 * address is to be restored: it goes on with the connections of its past, and while this host takes those for its own, later ones, it
 * answers the guest's segments with acknowledgements that it must ignore (RFC 9293, section 3.10.7.4), for minutes. Without them it
 * answers with a reset, and the guest connects anew at once.
 *
 * A server on another host has to find that out by itself.
 *
 * @param address IPv4 address.
 * @returns How many are left: a kernel without CONFIG_INET_DIAG_DESTROY ends none (ss(8), `--kill`).
 * @throws CommandError `host-unusable`
 */
export async function endConnections(address: string): Promise<number> {
  const those = ["--tcp", "--numeric", "--no-header", "dst", address];
  await run("ss", ["--kill", ...those]);
  const left = await run("ss", ["--oneline", ...those]);
  return left.split("\n").filter((line) => line.trim() !== "").length;
}
