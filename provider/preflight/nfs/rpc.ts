/** ONC RPC version 2 messages (RFC 5531 section 9): a call to bytes, bytes to a reply. */

import { encodeOpaque, encodeUint32, XdrError, XdrReader } from "./xdr.js";

const RPC_VERSION = 2;
const CALL = 0;
const REPLY = 1;
const AUTH_NONE = 0;
const AUTH_SYS = 1;
const MAX_AUTH_BYTES = 400;

/** A procedure of a version of a program. */
export interface Procedure {
  readonly program: number;
  readonly version: number;
  readonly procedure: number;
}

/** `auth_stat` of RFC 5531 section 9. */
const AUTH_STATUS: Readonly<Record<number, string>> = {
  0: "AUTH_OK",
  1: "AUTH_BADCRED",
  2: "AUTH_REJECTEDCRED",
  3: "AUTH_BADVERF",
  4: "AUTH_REJECTEDVERF",
  5: "AUTH_TOOWEAK",
  6: "AUTH_INVALIDRESP",
  7: "AUTH_FAILED",
  13: "RPCSEC_GSS_CREDPROBLEM",
  14: "RPCSEC_GSS_CTXPROBLEM",
};

/** A reply to a call of ours; `results` stands at the first byte of the procedure's results. */
export type Reply = { readonly xid: number } & (
  | { readonly outcome: "success"; readonly results: XdrReader }
  | { readonly outcome: "program-unavailable" }
  | { readonly outcome: "version-mismatch"; readonly lowest: number; readonly highest: number }
  | { readonly outcome: "failed"; readonly status: "PROC_UNAVAIL" | "GARBAGE_ARGS" | "SYSTEM_ERR" }
  | { readonly outcome: "denied"; readonly reason: string }
);

/** AUTH_NONE: flavor 0 with an empty body. Right for NULL procedures and rpcbind. */
export const noCredential: Buffer = encodeUint32(AUTH_NONE, 0);

/**
 * AUTH_SYS (RFC 5531 appendix A) of user 0, group 0, no further groups: what the guest's kernel mounts its root with.
 * @param machineName At most 255 bytes.
 */
export function rootCredential(machineName: string): Buffer {
  const body = Buffer.concat([encodeUint32(0), encodeOpaque(machineName), encodeUint32(0, 0, 0)]);
  return Buffer.concat([encodeUint32(AUTH_SYS), encodeOpaque(body)]);
}

/** The message that calls a procedure. `args` are its arguments in XDR. */
export function encodeCall(
  xid: number,
  { program, version, procedure }: Procedure,
  credential: Buffer,
  args: Buffer,
): Buffer {
  return Buffer.concat([
    encodeUint32(xid, CALL, RPC_VERSION, program, version, procedure),
    credential,
    noCredential,
    args,
  ]);
}

/** @throws {XdrError} when the message is no RPC reply. */
export function decodeReply(message: Buffer): Reply {
  const reader = new XdrReader(message);
  const xid = reader.uint32();
  const type = reader.uint32();
  if (type !== REPLY) throw new XdrError(`a message of type ${type} where a reply is due`);
  const status = reader.uint32();
  if (status === 0) return decodeAccepted(xid, reader);
  if (status === 1) return decodeDenied(xid, reader);
  throw new XdrError(`a reply of status ${status}`);
}

function decodeAccepted(xid: number, reader: XdrReader): Reply {
  reader.uint32();
  reader.opaque(MAX_AUTH_BYTES);
  const status = reader.uint32();
  switch (status) {
    case 0:
      return { xid, outcome: "success", results: reader };
    case 1:
      return { xid, outcome: "program-unavailable" };
    case 2:
      return { xid, outcome: "version-mismatch", lowest: reader.uint32(), highest: reader.uint32() };
    case 3:
      return { xid, outcome: "failed", status: "PROC_UNAVAIL" };
    case 4:
      return { xid, outcome: "failed", status: "GARBAGE_ARGS" };
    case 5:
      return { xid, outcome: "failed", status: "SYSTEM_ERR" };
    default:
      throw new XdrError(`an accepted reply of status ${status}`);
  }
}

function decodeDenied(xid: number, reader: XdrReader): Reply {
  const reason = reader.uint32();
  const detail = reader.uint32();
  if (reason === 0) {
    return { xid, outcome: "denied", reason: `RPC_MISMATCH: RPC versions ${detail} to ${reader.uint32()}` };
  }
  if (reason === 1) return { xid, outcome: "denied", reason: AUTH_STATUS[detail] ?? `auth_stat ${detail}` };
  throw new XdrError(`a rejection of kind ${reason}`);
}
