import * as fc from "fast-check";
import { afterAll, beforeAll, describe as suite, expect, it } from "vitest";

import {
  describe,
  type NfsFinding,
  type ProbeLimits,
  type ProbeRequest,
  probeNfs,
} from "../../../../provider/preflight/nfs/index.js";
import { encodeRecord, RecordAssembler, RecordError } from "../../../../provider/preflight/nfs/record.js";
import { decodeReply } from "../../../../provider/preflight/nfs/rpc.js";
import { encodeUint32, XdrError } from "../../../../provider/preflight/nfs/xdr.js";
import { mountdAnswers, nfsdAnswers } from "./answers.js";
import { type Peer, type PeerCall, startPeer } from "./peer.js";

const LANES = 50;
/** Rounds of one case per lane: 10,000 cases in all. Silence costs time, so few rounds have it. */
const ROUNDS = 190;
const SILENT_ROUNDS = 10;
/** The bound of either test; alone on two cores they take a tenth of it. */
const TIME_LIMIT_MS = 110_000;
const SILENT_LIMITS = { stepMs: 100, totalMs: 300 };
const NFS = 100_003;

/** Where a server goes wrong: nfsd's or mountd's n-th answer. */
interface Place {
  readonly service: "nfsd" | "mountd";
  readonly index: number;
}

/** What happens to a real answer. */
type Mutation =
  | { readonly type: "word"; readonly at: number; readonly value: number }
  | { readonly type: "byte"; readonly at: number; readonly value: number }
  | { readonly type: "cut"; readonly length: number }
  | { readonly type: "insert"; readonly at: number; readonly data: Uint8Array }
  | { readonly type: "body"; readonly words: readonly number[] }
  | { readonly type: "mark"; readonly header: number }
  | { readonly type: "fragments"; readonly size: number }
  | { readonly type: "twice" };

/** What one server does to one probe. */
type Scenario = {
  /** Bytes are written in pieces of this size. */
  readonly pieceBytes: number;
  /** What follows: the next answer, the end of the connection, or nothing ever again. */
  readonly ending: "answer" | "close" | "reset" | "silence";
} & (
  | { readonly type: "stream"; readonly data: Uint8Array; readonly service: Place["service"] }
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
const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.record({
    type: fc.constant("word" as const),
    at: fc.oneof(fc.integer({ min: 1, max: 6 }), fc.nat(60)),
    value: word,
  }),
  fc.record({ type: fc.constant("byte" as const), at: fc.nat(400), value: fc.nat(255) }),
  fc.record({ type: fc.constant("cut" as const), length: fc.nat(300) }),
  fc.record({ type: fc.constant("insert" as const), at: fc.nat(300), data }),
  fc.record({ type: fc.constant("body" as const), words: fc.array(word, { maxLength: 40 }) }),
  fc.record({ type: fc.constant("mark" as const), header: word }),
  fc.record({ type: fc.constant("fragments" as const), size: fc.integer({ min: 1, max: 40 }) }),
  fc.constant({ type: "twice" as const }),
);
const place: fc.Arbitrary<Place> = fc.oneof(
  fc.record({ service: fc.constant("nfsd" as const), index: fc.nat(nfsdAnswers.length - 1) }),
  fc.record({ service: fc.constant("mountd" as const), index: fc.nat(mountdAnswers.length - 1) }),
);
const pieceBytes = fc.oneof(fc.constant(65_536), fc.integer({ min: 1, max: 64 }));
/** Scenarios with one of these endings. */
function scenarios(...endings: Scenario["ending"][]): fc.Arbitrary<Scenario[]> {
  const manner = { pieceBytes, ending: fc.constantFrom(...endings) };
  const scenario: fc.Arbitrary<Scenario> = fc.oneof(
    fc.record({
      type: fc.constant("stream" as const),
      service: fc.constantFrom("nfsd" as const, "mountd" as const),
      data: fc.oneof(
        fc.uint8Array({ maxLength: 600 }),
        fc.array(word, { maxLength: 100 }).map((words) => encodeUint32(...words)),
        fc.array(data, { maxLength: 5 }).map((records) => Buffer.concat(records.map(encodeRecord))),
      ),
      ...manner,
    }),
    {
      arbitrary: fc.record({
        type: fc.constant("mutated" as const),
        place,
        mutations: fc.array(mutation, { minLength: 1, maxLength: 3 }),
        ...manner,
      }),
      weight: 3,
    },
  );
  return fc.array(scenario, { minLength: LANES, maxLength: LANES });
}

function realAnswer({ xid, program, index }: PeerCall): Buffer {
  const answers = program === NFS ? nfsdAnswers : mountdAnswers;
  return Buffer.concat([encodeUint32(xid), Buffer.from(answers[index % answers.length] ?? "", "hex")]);
}

/** The bytes on the wire for an answer to which all this has happened. */
function mutate(message: Buffer, mutations: readonly Mutation[]): Buffer {
  let header: number | undefined;
  let fragmentBytes: number | undefined;
  let times = 1;
  let body = Buffer.from(message);
  for (const change of mutations) {
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
  return wire;
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

/** Writes the bytes in pieces, then ends as the scenario says. */
function send(socket: PeerCall["socket"], wire: Buffer, scenario: Scenario, xid?: number): void {
  // At most 10 pieces: the time goes into cases, not into one of them.
  const piece = Math.max(scenario.pieceBytes, Math.ceil(wire.length / 10));
  for (let at = 0; at < wire.length; at += piece) socket.write(wire.subarray(at, at + piece));
  if (scenario.ending === "reset") socket.resetAndDestroy();
  const goesOn = scenario.ending === "answer" && xid !== undefined && decides(wire, xid);
  if (!goesOn && scenario.ending !== "silence") socket.end();
}

/** An nfsd and a mountd, which go wrong as their scenario says. */
class Lane {
  scenario: Scenario | undefined;
  #nfsd: Peer | undefined;
  #mountd: Peer | undefined;

  async start(): Promise<void> {
    this.#nfsd = await this.#peer("nfsd");
    this.#mountd = await this.#peer("mountd");
  }

  async stop(): Promise<void> {
    await this.#nfsd?.close();
    await this.#mountd?.close();
  }

  async run(next: Scenario | undefined, limits?: ProbeLimits): Promise<NfsFinding> {
    this.scenario = next;
    const request: ProbeRequest = {
      server: "127.0.0.1",
      port: this.#nfsd?.port ?? 0,
      mountPort: this.#mountd?.port ?? 0,
      path: "/srv",
      init: "/sbin/init",
      arch: "x86_64",
      limits,
    };
    const finding = await probeNfs(request);
    const { text } = describe(finding, request);
    expect(text).toMatch(/^[^\p{Cc}\p{Cf}]{10,3000}$/u);
    return finding;
  }

  #peer(service: Place["service"]): Promise<Peer> {
    return startPeer({
      onConnect: (socket) => {
        const now = this.scenario;
        if (now?.type === "stream" && now.service === service) send(socket, Buffer.from(now.data), now);
      },
      onCall: (call) => {
        const now = this.scenario;
        const message = realAnswer(call);
        if (now?.type === "mutated" && now.place.service === service && now.place.index === call.index) {
          send(call.socket, mutate(message, now.mutations), now, call.xid);
        } else if (now?.type !== "stream" || now.service !== service) {
          call.socket.write(encodeRecord(message));
        }
      },
    });
  }
}

suite(`the probe of ${LANES * (ROUNDS + SILENT_ROUNDS)} generated peers`, () => {
  const lanes = Array.from({ length: LANES }, () => new Lane());
  beforeAll(async () => {
    await Promise.all(lanes.map((lane) => lane.start()));
  });
  afterAll(async () => {
    await Promise.all(lanes.map((lane) => lane.stop()));
  });

  /** How often each kind of finding came. */
  async function run(
    numRuns: number,
    rounds: fc.Arbitrary<Scenario[]>,
    limits?: ProbeLimits,
  ): Promise<ReadonlyMap<string, number>> {
    const kinds = new Map<string, number>();
    await fc.assert(
      fc.asyncProperty(rounds, async (round) => {
        const findings = await Promise.all(lanes.map((lane, index) => lane.run(round[index], limits)));
        for (const { kind } of findings) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
      }),
      { numRuns, endOnFailure: true, interruptAfterTimeLimit: TIME_LIMIT_MS, markInterruptAsFailure: true },
    );
    expect([...kinds.values()].reduce((sum, count) => sum + count, 0)).toBe(LANES * numRuns);

    return kinds;
  }

  it("comes to one clear finding each, with no exception", { timeout: 120_000 }, async () => {
    const kinds = await run(ROUNDS, scenarios("answer", "answer", "close", "reset"));
    // A generator that reaches only the first few failures would prove little.
    expect(kinds.size).toBeGreaterThan(10);
    for (const kind of ["ok", "not-rpc", "disconnected", "nfs-error"]) {
      expect(kinds.get(kind), kind).toBeGreaterThan(50);
    }
  });

  it("ends in time when the peer does not", { timeout: 120_000 }, async () => {
    const kinds = await run(SILENT_ROUNDS, scenarios("silence"), SILENT_LIMITS);
    expect(kinds.get("timed-out")).toBeGreaterThan(50);
  });
});
