/** What has become of a file handle: whether a server still knows the root that a guest has mounted. */

import { RpcConnection } from "./connection.js";
import { Deadline, type ProbeLimits } from "./deadline.js";
import { type FileAttributes, type NfsFinding, ProbeEnd } from "./finding.js";
import { NfsSession } from "./session.js";

/** What GETATTR on a file handle came to. */
export type HandleFinding =
  | { readonly kind: "ok"; readonly attributes: FileAttributes }
  /** NFS3ERR_STALE: the file is gone, or the server restarted and gives out new handles. */
  | { readonly kind: "stale" }
  /** NFS3ERR_BADHANDLE: not a handle of this server. */
  | { readonly kind: "badhandle" }
  /** Another `nfsstat3`. */
  | { readonly kind: "failed"; readonly status: string }
  /** No answer. */
  | { readonly kind: "unreachable"; readonly finding: NfsFinding };

/** Options of {@link getAttributes}. */
export interface HandleOptions {
  /** Rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** 2 s a step and 5 s in all by default. */
  readonly limits?: ProbeLimits;
}

/**
 * @param target IPv4 address and TCP port of nfsd.
 * @param fileHandle Hex digits, at most 64 bytes.
 * @throws {RangeError} when the handle is no such thing.
 */
export async function getAttributes(
  target: { readonly server: string; readonly port: number },
  fileHandle: string,
  { signal, limits }: HandleOptions = {},
): Promise<HandleFinding> {
  if (!/^(?:[0-9a-f]{2}){1,64}$/i.test(fileHandle)) {
    throw new RangeError(`a file handle is 1 to 64 bytes in hex digits, not ${JSON.stringify(fileHandle)}`);
  }
  const dialing = {
    server: target.server,
    signal,
    deadline: new Deadline(limits),
    // The kernel's nfsd answers no other by default, and a guest on a tap has one.
    privilegedPort: true,
    asGuest: true,
  };
  let nfsd: RpcConnection | undefined;
  try {
    nfsd = await RpcConnection.open("nfsd", target.port, dialing);
    const result = await new NfsSession(nfsd, true).getAttributes(Buffer.from(fileHandle, "hex"));
    if (result.value !== undefined) return { kind: "ok", attributes: result.value };
    if (result.status === "NFS3ERR_STALE") return { kind: "stale" };
    if (result.status === "NFS3ERR_BADHANDLE") return { kind: "badhandle" };
    return { kind: "failed", status: result.status };
  } catch (error) {
    if (error instanceof ProbeEnd) return { kind: "unreachable", finding: error.finding };
    throw error;
  } finally {
    nfsd?.close();
  }
}
