/** An open conversation with nfsd: the NFSv3 procedures, each ending the probe where it fails for good. */

import { hostname } from "node:os";

import type { RpcConnection } from "./connection.js";
import { type FileAttributes, type NfsFinding, ProbeEnd } from "./finding.js";
import * as nfs from "./nfs3.js";
import { noCredential, rootCredential } from "./rpc.js";

/** AUTH_SYS of user 0 of this host. */
export const credential: Buffer = rootCredential(hostname());

/** A file in the export. */
export interface FileNode {
  /** Absolute path within the export. */
  readonly path: string;
  readonly fileHandle: Buffer;
  readonly attributes: FileAttributes;
}

/** `NFS3ERR_IO` and its like may be gone at the next try. */
const PASSING = new Set(["NFS3ERR_IO", "NFS3ERR_SERVERFAULT", "NFS3ERR_JUKEBOX"]);
const DENIED = new Set(["NFS3ERR_ACCES", "NFS3ERR_PERM"]);
const STALE = new Set(["NFS3ERR_STALE", "NFS3ERR_BADHANDLE"]);
const NOT_THERE = new Set(["NFS3ERR_NOENT", "NFS3ERR_NOTDIR", "NFS3ERR_NAMETOOLONG"]);

/** The NFSv3 procedures on one connection to nfsd. */
export class NfsSession {
  constructor(
    private readonly nfsd: RpcConnection,
    /** Whether a denial holds for the guest as well. */
    private readonly asGuest: boolean,
  ) {}

  /** @throws {ProbeEnd} */
  async ping(): Promise<void> {
    await this.nfsd.call({
      step: "NULL",
      procedure: nfs.nfsNull,
      credential: noCredential,
      args: Buffer.alloc(0),
      decode: () => undefined,
    });
  }

  /** GETATTR, whatever its status. @throws {ProbeEnd} when there is no answer. */
  getAttributes(fileHandle: Buffer): Promise<nfs.NfsResult<FileAttributes>> {
    return this.nfsd.call({
      step: "GETATTR",
      procedure: nfs.getAttr,
      credential,
      args: nfs.encodeHandle(fileHandle),
      decode: nfs.decodeGetAttr,
    });
  }

  /** GETATTR that must succeed. @throws {ProbeEnd} */
  async node(path: string, fileHandle: Buffer): Promise<FileNode> {
    const result = await this.getAttributes(fileHandle);
    return { path, fileHandle, attributes: this.#value(result, "GETATTR", path) };
  }

  /** LOOKUP; undefined when the name is not there. @throws {ProbeEnd} */
  async lookup(directory: FileNode, name: string): Promise<FileNode | undefined> {
    const path = `${directory.path === "/" ? "" : directory.path}/${name}`;
    const result = await this.nfsd.call({
      step: "LOOKUP",
      procedure: nfs.lookup,
      credential,
      args: nfs.encodeLookup(directory.fileHandle, name),
      decode: nfs.decodeLookup,
    });
    if (NOT_THERE.has(result.status)) return undefined;
    const { fileHandle, attributes } = this.#value(result, "LOOKUP", path);
    return attributes === undefined ? this.node(path, fileHandle) : { path, fileHandle, attributes };
  }

  /** READLINK. @throws {ProbeEnd} */
  async readLink(link: FileNode): Promise<string> {
    const result = await this.nfsd.call({
      step: "READLINK",
      procedure: nfs.readLink,
      credential,
      args: nfs.encodeHandle(link.fileHandle),
      decode: nfs.decodeReadLink,
    });
    return this.#value(result, "READLINK", link.path);
  }

  /** READ of the first `byteCount` bytes, or fewer. @throws {ProbeEnd} */
  async readHead(file: FileNode, byteCount: number): Promise<Buffer> {
    const result = await this.nfsd.call({
      step: "READ",
      procedure: nfs.read,
      credential,
      args: nfs.encodeRead(file.fileHandle, byteCount),
      decode: (results) => nfs.decodeRead(results, byteCount),
    });
    return this.#value(result, "READ", file.path);
  }

  #value<T>(result: nfs.NfsResult<T>, step: string, path: string): T {
    if (result.value !== undefined) return result.value;
    throw new ProbeEnd(failure(result.status, step, path, this.asGuest));
  }
}

function failure(status: string, step: string, at: string, asGuest: boolean): NfsFinding {
  if (STALE.has(status)) return { kind: "stale", certain: true, step, status };
  if (DENIED.has(status)) {
    return { kind: "access-denied", certain: asGuest, step, status, at, needsPrivilegedPort: false };
  }
  return { kind: "nfs-error", certain: !PASSING.has(status), step, status };
}
