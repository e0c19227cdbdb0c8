/** NFS version 3 (RFC 1813 section 3): the four procedures that the probe calls. */

import type { FileAttributes, FileType } from "./finding.js";
import type { Procedure } from "./rpc.js";
import { encodeOpaque, encodeUint32, encodeUint64, XdrError, type XdrReader } from "./xdr.js";

const NFS = { program: 100_003, version: 3 } as const;
const MAX_HANDLE_BYTES = 64;
const MAX_LINK_BYTES = 4096;

/** NFSPROC3_NULL, _GETATTR, _LOOKUP, _READLINK and _READ. */
export const nfsNull: Procedure = { ...NFS, procedure: 0 };
export const getAttr: Procedure = { ...NFS, procedure: 1 };
export const lookup: Procedure = { ...NFS, procedure: 3 };
export const readLink: Procedure = { ...NFS, procedure: 5 };
export const read: Procedure = { ...NFS, procedure: 6 };

/** `nfsstat3`, section 2.6. */
const NFS_STATUS: Readonly<Record<number, string>> = {
  0: "NFS3_OK",
  1: "NFS3ERR_PERM",
  2: "NFS3ERR_NOENT",
  5: "NFS3ERR_IO",
  6: "NFS3ERR_NXIO",
  13: "NFS3ERR_ACCES",
  17: "NFS3ERR_EXIST",
  18: "NFS3ERR_XDEV",
  19: "NFS3ERR_NODEV",
  20: "NFS3ERR_NOTDIR",
  21: "NFS3ERR_ISDIR",
  22: "NFS3ERR_INVAL",
  27: "NFS3ERR_FBIG",
  28: "NFS3ERR_NOSPC",
  30: "NFS3ERR_ROFS",
  31: "NFS3ERR_MLINK",
  63: "NFS3ERR_NAMETOOLONG",
  66: "NFS3ERR_NOTEMPTY",
  69: "NFS3ERR_DQUOT",
  70: "NFS3ERR_STALE",
  71: "NFS3ERR_REMOTE",
  10_001: "NFS3ERR_BADHANDLE",
  10_002: "NFS3ERR_NOT_SYNC",
  10_003: "NFS3ERR_BAD_COOKIE",
  10_004: "NFS3ERR_NOTSUPP",
  10_005: "NFS3ERR_TOOSMALL",
  10_006: "NFS3ERR_SERVERFAULT",
  10_007: "NFS3ERR_BADTYPE",
  10_008: "NFS3ERR_JUKEBOX",
};

/** `ftype3`, section 2.5. */
const FILE_TYPES: Readonly<Record<number, FileType>> = {
  1: "file",
  2: "directory",
  3: "block device",
  4: "character device",
  5: "symbolic link",
  6: "socket",
  7: "named pipe",
};

/** What a procedure came to: its value, or the name of its `nfsstat3`. */
export type NfsResult<T> =
  | { readonly status: "NFS3_OK"; readonly value: T }
  | { readonly status: string; readonly value?: undefined };

/** Arguments of GETATTR and READLINK: a file handle of at most 64 bytes. */
export function encodeHandle(fileHandle: Buffer): Buffer {
  return encodeOpaque(fileHandle);
}

/** Arguments of LOOKUP: diropargs3. */
export function encodeLookup(directory: Buffer, name: string): Buffer {
  return Buffer.concat([encodeOpaque(directory), encodeOpaque(name)]);
}

/** Arguments of READ: from the first byte of the file. */
export function encodeRead(fileHandle: Buffer, byteCount: number): Buffer {
  return Buffer.concat([encodeOpaque(fileHandle), encodeUint64(0n), encodeUint32(byteCount)]);
}

/** @throws {XdrError} when the results are malformed. */
export function decodeGetAttr(results: XdrReader): NfsResult<FileAttributes> {
  return decodeResult(results, () => decodeAttributes(results));
}

/** The attributes are absent where the server chose to leave them out. @throws {XdrError} */
export function decodeLookup(
  results: XdrReader,
): NfsResult<{ readonly fileHandle: Buffer; readonly attributes?: FileAttributes }> {
  return decodeResult(results, () => {
    const fileHandle = results.opaque(MAX_HANDLE_BYTES);
    if (fileHandle.length === 0) throw new XdrError("an empty file handle");
    return { fileHandle, attributes: decodeOptionalAttributes(results) };
  });
}

/** @throws {XdrError} when the results are malformed. */
export function decodeReadLink(results: XdrReader): NfsResult<string> {
  return decodeResult(results, () => {
    decodeOptionalAttributes(results);
    return results.string(MAX_LINK_BYTES);
  });
}

/** @throws {XdrError} when the results are malformed, or more than `byteCount` bytes. */
export function decodeRead(results: XdrReader, byteCount: number): NfsResult<Buffer> {
  return decodeResult(results, () => {
    decodeOptionalAttributes(results);
    results.uint32();
    results.bool();
    return results.opaque(byteCount);
  });
}

function decodeResult<T>(results: XdrReader, value: () => T): NfsResult<T> {
  const status = results.uint32();
  if (status === 0) return { status: "NFS3_OK", value: value() };
  return { status: NFS_STATUS[status] ?? `nfsstat3 ${status}` };
}

function decodeOptionalAttributes(results: XdrReader): FileAttributes | undefined {
  return results.bool() ? decodeAttributes(results) : undefined;
}

/** fattr3: 84 bytes. */
function decodeAttributes(results: XdrReader): FileAttributes {
  const typeNumber = results.uint32();
  const type = FILE_TYPES[typeNumber];
  if (type === undefined) throw new XdrError(`a file of type ${typeNumber}`);
  const mode = results.uint32() & 0o7777;
  results.uint32();
  const uid = results.uint32();
  const gid = results.uint32();
  const sizeBytes = Number(results.uint64());
  results.skip(8 + 8);
  const fileSystemId = results.uint64().toString(16).padStart(16, "0");
  const fileId = results.uint64().toString();
  results.skip(3 * 8);
  return { type, mode, uid, gid, sizeBytes, fileSystemId, fileId };
}
