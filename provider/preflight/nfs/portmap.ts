/** rpcbind version 2, the port mapper (RFC 1833 section 3): on which TCP port a program listens. */

import type { Procedure } from "./rpc.js";
import { encodeUint32, type XdrReader } from "./xdr.js";

/** Port of rpcbind. */
export const RPCBIND_PORT = 111;

const IPPROTO_TCP = 6;

/** PMAPPROC_GETPORT. */
export const getPort: Procedure = { program: 100_000, version: 2, procedure: 3 };

/** Arguments of {@link getPort}: struct mapping, whose port is ignored. */
export function encodeMapping({ program, version }: Procedure): Buffer {
  return encodeUint32(program, version, IPPROTO_TCP, 0);
}

/** Results of {@link getPort}: a port, or 0 when the program is not registered. */
export function decodePort(results: XdrReader): number {
  return results.uint32();
}
