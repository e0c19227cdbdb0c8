import { describe, expect, it } from "vitest";

import {
  decodeReply,
  encodeCall,
  noCredential,
  type Reply,
  rootCredential,
} from "../../../../provider/preflight/nfs/rpc.js";
import { XdrError } from "../../../../provider/preflight/nfs/xdr.js";
import { bytes } from "./bytes.js";

const VERIFIER = "00000000 00000000";

const accepted = (rest: string): Reply => decodeReply(bytes(`0a0b0c0d 00000001 00000000 ${rest}`));
const denied = (rest: string): Reply => decodeReply(bytes(`0a0b0c0d 00000001 00000001 ${rest}`));

describe("RPC calls (RFC 5531 section 9)", () => {
  it("calls NULL of NFS version 3 without a credential", () => {
    const procedure = { program: 100_003, version: 3, procedure: 0 };
    expect(encodeCall(0x0102_0304, procedure, noCredential, Buffer.alloc(0))).toEqual(
      bytes(`01020304 00000000 00000002 000186a3 00000003 00000000 00000000 00000000 ${VERIFIER}`),
    );
  });

  it("carries AUTH_SYS of root: stamp, machine name, uid 0, gid 0, no groups (appendix A)", () => {
    expect(rootCredential("vm")).toEqual(
      bytes("00000001 00000018 00000000 00000002 766d0000 00000000 00000000 00000000"),
    );
  });

  it("puts the arguments after the empty verifier", () => {
    const procedure = { program: 100_005, version: 3, procedure: 1 };
    expect(encodeCall(0xffff_ffff, procedure, rootCredential(""), bytes("00000004 2f737276"))).toEqual(
      bytes(`ffffffff 00000000 00000002 000186a5 00000003 00000001
        00000001 00000014 00000000 00000000 00000000 00000000 00000000 ${VERIFIER} 00000004 2f737276`),
    );
  });
});

describe("RPC replies (RFC 5531 section 9)", () => {
  it("reads a success up to its results, past any verifier", () => {
    const reply = accepted("00000000 00000003 aabbcc00 00000000 0000002a");
    expect(reply).toMatchObject({ xid: 0x0a0b_0c0d, outcome: "success" });
    expect(reply.outcome === "success" && reply.results.uint32()).toBe(42);
  });

  it.each([
    ["PROG_UNAVAIL", "00000001", { outcome: "program-unavailable" }],
    ["PROG_MISMATCH", "00000002 00000004 00000005", { outcome: "version-mismatch", lowest: 4, highest: 5 }],
    ["PROC_UNAVAIL", "00000003", { outcome: "failed", status: "PROC_UNAVAIL" }],
    ["GARBAGE_ARGS", "00000004", { outcome: "failed", status: "GARBAGE_ARGS" }],
    ["SYSTEM_ERR", "00000005", { outcome: "failed", status: "SYSTEM_ERR" }],
  ])("reads %s", (_name, status, expected) => {
    expect(accepted(`${VERIFIER} ${status}`)).toEqual({ xid: 0x0a0b_0c0d, ...expected });
  });

  it.each([
    ["00000000 00000003 00000004", "RPC_MISMATCH: RPC versions 3 to 4"],
    ["00000001 00000001", "AUTH_BADCRED"],
    ["00000001 00000005", "AUTH_TOOWEAK"],
    ["00000001 0000000d", "RPCSEC_GSS_CREDPROBLEM"],
    ["00000001 00000063", "auth_stat 99"],
  ])("reads the denial %s as %s", (rest, reason) => {
    expect(denied(rest)).toEqual({ xid: 0x0a0b_0c0d, outcome: "denied", reason });
  });

  it.each([
    ["an empty message", ""],
    ["a call", "0a0b0c0d 00000000 00000002"],
    ["an unknown reply status", "0a0b0c0d 00000001 00000002"],
    ["an unknown accept status", `0a0b0c0d 00000001 00000000 ${VERIFIER} 00000006`],
    ["an unknown rejection", "0a0b0c0d 00000001 00000001 00000002 00000000"],
    ["a verifier over 400 bytes", "0a0b0c0d 00000001 00000000 00000000 00000191"],
    ["a mismatch without versions", `0a0b0c0d 00000001 00000000 ${VERIFIER} 00000002 00000003`],
  ])("refuses %s", (_name, message) => {
    expect(() => decodeReply(bytes(message))).toThrow(XdrError);
  });
});
