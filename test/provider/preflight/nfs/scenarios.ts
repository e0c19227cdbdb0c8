/** Servers that go wrong, as fast-check makes them up. */

import type { Socket } from "node:net";
import * as fc from "fast-check";

import type { Service } from "../../../../provider/preflight/nfs/finding.js";
import { encodeRecord, RecordAssembler, RecordError } from "../../../../provider/preflight/nfs/record.js";
import { decodeReply } from "../../../../provider/preflight/nfs/rpc.js";
import { encodeUint32, XdrError } from "../../../../provider/preflight/nfs/xdr.js";
import { mountdAnswers, nfsdAnswers } from "./answers.js";

/** Where a server goes wrong: the n-th answer of a service. */
export interface Place {
  readonly service: Service;
  readonly index: number;
}

/** What happens to a real answer. */
export type Mutation =
  | { readonly type: "word"; readonly at: number; readonly value: number }
  | { readonly type: "byte"; readonly at: number; readonly value: number }
  | { readonly type: "cut"; readonly length: number }
  | { readonly type: "insert"; readonly at: number; readonly data: Uint8Array }
  | { readonly type: "body"; readonly words: readonly number[] }
  | { readonly type: "mark"; readonly header: number }
  | { readonly type: "fragments"; readonly size: number }
  /** A denial (RFC 5531 section 9): the words after REPLY and MSG_DENIED. */
  | { readonly type: "denied"; readonly words: readonly number[] }
  /** Whole answers to other calls, before it. */
  | { readonly type: "strays"; readonly count: number }
  | { readonly type: "twice" };

/** What follows on the connection: the next answer, its end, nothing ever again, a byte now and then, or bytes without end. */
export type Ending = "answer" | "close" | "reset" | "silence" | "drip" | "flood";

/** What one server does to one probe. */
export type Scenario = {
  /** Bytes are written in pieces of this size. */
  readonly pieceBytes: number;
  readonly ending: Ending;
  /** Whether mountd denies the mount, and is asked for its exports. */
  readonly denies: boolean;
} & (
  | { readonly type: "stream"; readonly data: Uint8Array; readonly service: Service }
  | { readonly type: "mutated"; readonly place: Place; readonly mutations: readonly Mutation[] }
);

const word = fc.oneof(
  fc.constantFrom(
    0,
    1,
    2,
    3,
    5,
    13,
    20,
    24,
    64,
    65,
    70,
    256,
    4096,
    4097,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
  ),
  fc.nat(0xffff_ffff),
);
const data = fc.uint8Array({ maxLength: 64 });
const denial = fc.oneof(
  fc.tuple(fc.constant(0), word, word),
  fc.tuple(fc.constant(1), fc.nat(15)),
  fc.array(word, { maxLength: 4 }),
);
/** These leave the words of an answer as they are, or take some away. */
const carriage: fc.Arbitrary<Mutation> = fc.oneof(
  fc.record({ type: fc.constant("cut" as const), length: fc.nat(300) }),
  fc.record({ type: fc.constant("mark" as const), header: word }),
  fc.record({ type: fc.constant("fragments" as const), size: fc.integer({ min: 1, max: 40 }) }),
  fc.record({ type: fc.constant("denied" as const), words: denial }),
  fc.record({ type: fc.constant("strays" as const), count: fc.integer({ min: 1, max: 40 }) }),
  fc.constant({ type: "twice" as const }),
);
const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.record({
    type: fc.constant("word" as const),
    at: fc.oneof(fc.integer({ min: 1, max: 6 }), fc.nat(60)),
    value: word,
  }),
  fc.record({ type: fc.constant("byte" as const), at: fc.nat(400), value: fc.nat(255) }),
  fc.record({ type: fc.constant("insert" as const), at: fc.nat(300), data }),
  fc.record({ type: fc.constant("body" as const), words: fc.array(word, { maxLength: 40 }) }),
  { arbitrary: carriage, weight: 4 },
);
/** One to three of them. */
export const mutations = fc.array(mutation, { minLength: 1, maxLength: 3 });

/** Answers of nfsd and mountd with changed words; of rpcbind none, since a wrong port may be anybody's. */
const changed = fc.oneof(
  {
    arbitrary: fc.record({
      place: fc.oneof(
        fc.record({ service: fc.constant("nfsd" as const), index: fc.nat(nfsdAnswers.length - 1) }),
        fc.record({ service: fc.constant("mountd" as const), index: fc.nat(mountdAnswers.length - 1) }),
      ),
      mutations,
    }),
    weight: 5,
  },
  fc.record({
    place: fc.constant<Place>({ service: "rpcbind", index: 0 }),
    mutations: fc.array(carriage, { minLength: 1, maxLength: 3 }),
  }),
);
const pieceBytes = fc.oneof(fc.constant(65_536), fc.integer({ min: 1, max: 64 }));
/** Bytes that are no answer, or hardly one. */
const stream = fc.oneof(
  fc.uint8Array({ maxLength: 600 }),
  fc.array(word, { maxLength: 100 }).map((words) => encodeUint32(...words)),
  fc.array(data, { maxLength: 5 }).map((records) => Buffer.concat(records.map(encodeRecord))),
);

/** Scenarios with one of these endings, one for each of `count` probes. */
export function scenarios(count: number, ...endings: Ending[]): fc.Arbitrary<Scenario[]> {
  const denies = fc.oneof({ arbitrary: fc.constant(false), weight: 4 }, fc.constant(true));
  const manner = { pieceBytes, ending: fc.constantFrom(...endings), denies };
  const scenario: fc.Arbitrary<Scenario> = fc.oneof(
    fc.record({
      type: fc.constant("stream" as const),
      service: fc.constantFrom("nfsd" as const, "mountd" as const, "rpcbind" as const),
      data: stream,
      ...manner,
    }),
    {
      arbitrary: fc
        .record({ type: fc.constant("mutated" as const), changed, ...manner })
        .map(({ changed: change, ...rest }) => ({ ...rest, ...change })),
      weight: 3,
    },
  );
  return fc.array(scenario, { minLength: count, maxLength: count });
}

/** The bytes on the wire for an answer to which all this has happened. */
export function mutate(message: Buffer, changes: readonly Mutation[]): Buffer {
  let header: number | undefined;
  let fragmentBytes: number | undefined;
  let times = 1;
  let strays = 0;
  let body = Buffer.from(message);
  for (const change of changes) {
    switch (change.type) {
      case "word":
        if (4 * change.at + 4 <= body.length) body.writeUInt32BE(change.value, 4 * change.at);
        break;
      case "byte":
        body[change.at % Math.max(1, body.length)] = change.value;
        break;
      case "cut":
        body = body.subarray(0, change.length);
        break;
      case "insert":
        body = Buffer.concat([body.subarray(0, change.at), change.data, body.subarray(change.at)]);
        break;
      case "body":
        body = Buffer.concat([body.subarray(0, 4), encodeUint32(1, 0, 0, 0, 0, ...change.words)]);
        break;
      case "mark":
        header = change.header;
        break;
      case "fragments":
        fragmentBytes = change.size;
        break;
      case "denied":
        body = Buffer.concat([body.subarray(0, 4), encodeUint32(1, 1, ...change.words)]);
        break;
      case "strays":
        strays = change.count;
        break;
      case "twice":
        times = 2;
        break;
      default: {
        const missing: never = change;
        throw new TypeError(`no such mutation: ${JSON.stringify(missing)}`);
      }
    }
  }
  let wire = fragmentBytes === undefined ? encodeRecord(body) : fragmented(body, fragmentBytes);
  if (header !== undefined) wire.writeUInt32BE(header, 0);
  if (times === 2) wire = Buffer.concat([wire, wire]);
  const stray = Buffer.from(message);
  if (strays > 0) stray.writeUInt32BE((stray.readUInt32BE() ^ 1) >>> 0);
  return Buffer.concat([...Array.from({ length: strays }, () => encodeRecord(stray)), wire]);
}

function fragmented(body: Buffer, size: number): Buffer {
  const fragments: Buffer[] = [];
  for (let at = 0; at < body.length; at += size) {
    const fragment = encodeRecord(body.subarray(at, at + size));
    if (at + size < body.length) fragment.writeUInt8(0, 0);
    fragments.push(fragment);
  }
  return fragments.length === 0 ? encodeRecord(body) : Buffer.concat(fragments);
}

/** Whether a probe that gets these bytes knows enough, and does not wait for more. */
function decides(wire: Buffer, xid: number): boolean {
  try {
    return [...new RecordAssembler().push(wire)].some((message) => decodeReply(message).xid === xid);
  } catch (error) {
    if (error instanceof XdrError || error instanceof RecordError) return true;
    throw error;
  }
}

/** Writes the bytes in pieces, then ends as it is told. */
export function send(
  socket: Socket,
  wire: Buffer,
  { pieceBytes: bytes, ending }: Pick<Scenario, "pieceBytes" | "ending">,
  xid?: number,
): void {
  // At most 10 pieces: the time goes into cases, not into one of them.
  const piece = Math.max(bytes, Math.ceil(wire.length / 10));
  for (let at = 0; at < wire.length; at += piece) socket.write(wire.subarray(at, at + piece));
  switch (ending) {
    case "reset":
      socket.resetAndDestroy();
      return;
    case "close":
      socket.end();
      return;
    case "answer":
      if (xid === undefined || !decides(wire, xid)) socket.end();
      return;
    case "silence":
      return;
    case "drip":
      drip(socket);
      return;
    case "flood":
      flood(socket);
      return;
    default:
      ending satisfies never;
  }
}

const DRIP_MS = 10;

function drip(socket: Socket): void {
  const timer = setInterval(() => socket.write(Buffer.alloc(1)), DRIP_MS);
  socket.once("close", () => clearInterval(timer));
}

const FLOOD_BYTES = 2 ** 20;

function flood(socket: Socket): void {
  const chunk = Buffer.alloc(65_536);
  for (let sent = 0; sent < FLOOD_BYTES && !socket.destroyed; sent += chunk.length) socket.write(chunk);
}

/** What a server does when it is asked for the attributes of a handle. */
export interface HandleScenario extends Pick<Scenario, "pieceBytes" | "ending"> {
  /** Whether its real answer, before the mutations, is NFS3ERR_STALE. */
  readonly isStale: boolean;
  readonly mutations: readonly Mutation[];
}

/** As {@link scenarios}, for servers that are asked for a handle. */
export function handleScenarios(count: number, ...endings: Ending[]): fc.Arbitrary<HandleScenario[]> {
  const scenario = fc.record({
    pieceBytes,
    ending: fc.constantFrom(...endings),
    isStale: fc.boolean(),
    mutations,
  });
  return fc.array(scenario, { minLength: count, maxLength: count });
}
