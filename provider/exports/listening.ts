/** At which addresses of this host a port is listened on, whatever its server was told. */

import { readFile } from "node:fs/promises";

import { isAbsent, storageError } from "../host/storage.js";

/** A socket that listens at any address, of IPv4 or of both; state 0A is LISTEN (Documentation/networking/proc_net_tcp.rst). */
const ANYWHERE = /^ *\d+: 0+:([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} 0A /gm;

/** Whether something listens on a TCP port at every address of this host. */
export async function listensEverywhere(port: number): Promise<boolean> {
  const texts = await Promise.all(["/proc/net/tcp", "/proc/net/tcp6"].map(textOf));
  return texts.some((text) =>
    [...text.matchAll(ANYWHERE)].some(([, hex = ""]) => parseInt(hex, 16) === port),
  );
}

async function textOf(path: string): Promise<string> {
  try {
    return await readFile(path, "latin1");
  } catch (error) {
    if (isAbsent(error)) return ""; // a kernel without IPv6
    throw storageError(error, `read ${path}`);
  }
}
