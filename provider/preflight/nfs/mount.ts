/** The MOUNT protocol version 3 (RFC 1813 section 5): from an export's path to its root file handle. */

import type { Procedure } from "./rpc.js";
import { encodeOpaque, XdrError, type XdrReader } from "./xdr.js";

const MOUNT = { program: 100_005, version: 3 } as const;
const MAX_PATH_BYTES = 1024;
const MAX_NAME_BYTES = 255;
const MAX_HANDLE_BYTES = 64;
const MAX_FLAVORS = 64;
const MAX_EXPORTS = 256;

/** MOUNTPROC3_NULL, _MNT, _UMNT and _EXPORT. */
export const mountNull: Procedure = { ...MOUNT, procedure: 0 };
export const mnt: Procedure = { ...MOUNT, procedure: 1 };
export const umnt: Procedure = { ...MOUNT, procedure: 3 };
export const listExports: Procedure = { ...MOUNT, procedure: 5 };

/** `mountstat3`, section 5.1.5. */
const MOUNT_STATUS: Readonly<Record<number, string>> = {
  1: "MNT3ERR_PERM",
  2: "MNT3ERR_NOENT",
  5: "MNT3ERR_IO",
  13: "MNT3ERR_ACCES",
  20: "MNT3ERR_NOTDIR",
  22: "MNT3ERR_INVAL",
  63: "MNT3ERR_NAMETOOLONG",
  10_004: "MNT3ERR_NOTSUPP",
  10_006: "MNT3ERR_SERVERFAULT",
};

/** Results of MNT. */
export type MountResult =
  | { readonly status: "MNT3_OK"; readonly fileHandle: Buffer; readonly flavors: readonly number[] }
  | { readonly status: string; readonly fileHandle?: undefined };

/** Arguments of MNT and UMNT: dirpath. */
export function encodePath(path: string): Buffer {
  return encodeOpaque(path);
}

/** @throws {XdrError} when the results are malformed. */
export function decodeMount(results: XdrReader): MountResult {
  const status = results.uint32();
  if (status !== 0) return { status: MOUNT_STATUS[status] ?? `mountstat3 ${status}` };
  const fileHandle = results.opaque(MAX_HANDLE_BYTES);
  if (fileHandle.length === 0) throw new XdrError("an empty file handle");
  const count = results.uint32();
  if (count > MAX_FLAVORS) throw new XdrError(`a list of ${count} security flavors`);
  const flavors = Array.from({ length: count }, () => results.uint32());
  return { status: "MNT3_OK", fileHandle, flavors };
}

/**
 * Results of EXPORT: a linked list of directories, each with a linked list of the clients that may mount it.
 * @returns The first 256 directories.
 * @throws {XdrError} when the results are malformed.
 */
export function decodeExports(results: XdrReader): string[] {
  const directories: string[] = [];
  while (results.bool()) {
    const directory = results.string(MAX_PATH_BYTES);
    while (results.bool()) results.opaque(MAX_NAME_BYTES);
    if (directories.length < MAX_EXPORTS) directories.push(directory);
  }
  return directories;
}
