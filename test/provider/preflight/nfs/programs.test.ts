import { describe, expect, it } from "vitest";

import * as mount from "../../../../provider/preflight/nfs/mount.js";
import * as nfs from "../../../../provider/preflight/nfs/nfs3.js";
import { decodePort, encodeMapping, getPort } from "../../../../provider/preflight/nfs/portmap.js";
import { XdrError, XdrReader } from "../../../../provider/preflight/nfs/xdr.js";
import { bytes } from "./bytes.js";

const reader = (hex: string): XdrReader => new XdrReader(bytes(hex));

/** fattr3 of RFC 1813 section 2.5, written out field by field. */
const ATTRIBUTES = `
  00000001 000089ed 00000002 000003e8 00000064 00000001 00000002 00000000 00002000
  00000000 00000000 00000000 0000002a 00000000 00000539
  65000000 00000000 65000001 00000000 65000002 00000000`;

const DECODED = {
  type: "file",
  mode: 0o4755,
  uid: 1000,
  gid: 100,
  sizeBytes: 4_294_967_298,
  fileSystemId: "000000000000002a",
  fileId: "1337",
};

describe("portmap version 2 (RFC 1833 section 3)", () => {
  it("asks for mountd version 3 over TCP", () => {
    expect(getPort).toEqual({ program: 100_000, version: 2, procedure: 3 });
    expect(encodeMapping(mount.mnt)).toEqual(bytes("000186a5 00000003 00000006 00000000"));
    expect(decodePort(reader("00004e50"))).toBe(20_048);
  });
});

describe("MOUNT version 3 (RFC 1813 section 5)", () => {
  it("has the numbers of the RFC", () => {
    expect(mount.mountNull).toEqual({ program: 100_005, version: 3, procedure: 0 });
    expect(mount.mnt.procedure).toBe(1);
    expect(mount.umnt.procedure).toBe(3);
    expect(mount.listExports.procedure).toBe(5);
  });

  it("encodes a path in UTF-8", () => {
    expect(mount.encodePath("/srv/é")).toEqual(bytes("00000007 2f737276 2fc3a900"));
  });

  it("reads a file handle and the security flavors", () => {
    expect(
      mount.decodeMount(reader("00000000 00000005 0102030405 000000 00000002 00000001 0005f3df")),
    ).toEqual({
      status: "MNT3_OK",
      fileHandle: bytes("0102030405"),
      flavors: [1, 390_111],
    });
  });

  it.each([
    [1, "MNT3ERR_PERM"],
    [2, "MNT3ERR_NOENT"],
    [5, "MNT3ERR_IO"],
    [13, "MNT3ERR_ACCES"],
    [20, "MNT3ERR_NOTDIR"],
    [22, "MNT3ERR_INVAL"],
    [63, "MNT3ERR_NAMETOOLONG"],
    [10_004, "MNT3ERR_NOTSUPP"],
    [10_006, "MNT3ERR_SERVERFAULT"],
    [77, "mountstat3 77"],
  ])("names the status %i %s", (status, name) => {
    expect(mount.decodeMount(reader(status.toString(16).padStart(8, "0")))).toEqual({ status: name });
  });

  it.each([
    ["an empty file handle", "00000000 00000000 00000000"],
    ["a file handle over 64 bytes", `00000000 00000044 ${"00".repeat(68)} 00000000`],
    ["flavors without end", "00000000 00000001 01000000 ffffffff"],
  ])("refuses %s", (_name, hex) => {
    expect(() => mount.decodeMount(reader(hex))).toThrow(XdrError);
  });

  it("reads the list of exports past the clients of each", () => {
    const list = `
      00000001 00000004 2f737276 00000001 00000002 2a2e0000 00000001 00000001 61000000 00000000
      00000001 00000005 2f686f6d 65000000 00000000
      00000000`;
    expect(mount.decodeExports(reader(list))).toEqual(["/srv", "/home"]);
  });

  it("keeps the first 256 exports of a long list", () => {
    const list = `${"00000001 00000001 2f000000 00000000".repeat(300)}00000000`;
    expect(mount.decodeExports(reader(list))).toHaveLength(256);
  });
});

describe("NFS version 3 (RFC 1813 section 3)", () => {
  it("has the numbers of the RFC", () => {
    expect(nfs.nfsNull).toEqual({ program: 100_003, version: 3, procedure: 0 });
    expect([nfs.getAttr, nfs.lookup, nfs.readLink, nfs.read].map(({ procedure }) => procedure)).toEqual([
      1, 3, 5, 6,
    ]);
  });

  it("encodes the arguments", () => {
    const handle = bytes("aabbccdd ee");
    expect(nfs.encodeHandle(handle)).toEqual(bytes("00000005 aabbccdd ee000000"));
    expect(nfs.encodeLookup(handle, "init")).toEqual(bytes("00000005 aabbccdd ee000000 00000004 696e6974"));
    expect(nfs.encodeRead(handle, 4096)).toEqual(
      bytes("00000005 aabbccdd ee000000 00000000 00000000 00001000"),
    );
  });

  it("reads attributes", () => {
    expect(nfs.decodeGetAttr(reader(`00000000 ${ATTRIBUTES}`))).toEqual({
      status: "NFS3_OK",
      value: DECODED,
    });
  });

  it.each([
    [2, "NFS3ERR_NOENT"],
    [13, "NFS3ERR_ACCES"],
    [70, "NFS3ERR_STALE"],
    [10_001, "NFS3ERR_BADHANDLE"],
    [10_008, "NFS3ERR_JUKEBOX"],
    [12_345, "nfsstat3 12345"],
  ])("names the status %i %s", (status, name) => {
    expect(nfs.decodeGetAttr(reader(status.toString(16).padStart(8, "0")))).toEqual({ status: name });
  });

  it("reads LOOKUP with and without attributes", () => {
    const handle = "00000004 aabbccdd";
    expect(nfs.decodeLookup(reader(`00000000 ${handle} 00000000 00000000`)).value).toEqual({
      fileHandle: bytes("aabbccdd"),
    });
    expect(
      nfs.decodeLookup(reader(`00000000 ${handle} 00000001 ${ATTRIBUTES} 00000000`)).value,
    ).toMatchObject({
      attributes: { fileId: "1337" },
    });
  });

  it("reads READLINK and READ", () => {
    expect(nfs.decodeReadLink(reader("00000000 00000000 00000003 2f622f00")).value).toBe("/b/");
    const data = "00000000 00000000 00000002 00000001 00000002 23210000";
    expect(nfs.decodeRead(reader(data), 4096).value).toEqual(bytes("2321"));
    expect(() => nfs.decodeRead(reader(data), 1)).toThrow(XdrError);
  });

  it("refuses a file type that the RFC does not have", () => {
    expect(() => nfs.decodeGetAttr(reader(`00000000 00000008 ${ATTRIBUTES.slice(11)}`))).toThrow(/type 8/);
  });
});
