/** Generated servers that are asked whether they still know a root: a wrong "stale" would replace a VM. */

import type { Socket } from "node:net";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { getAttributes, type HandleState, handleState } from "../../../../provider/preflight/nfs/index.js";
import { RecordAssembler, RecordError } from "../../../../provider/preflight/nfs/record.js";
import { encodeUint32 } from "../../../../provider/preflight/nfs/xdr.js";
import { nfsdAnswers, rootHandle } from "./answers.js";
import { type PeerCall, startPeer } from "./peer.js";
import { type HandleScenario, handleScenarios, mutate, send } from "./scenarios.js";

const LANES = 50;
const ROUNDS = 20;
/** Each takes the 2 s that an answer may take. */
const SILENT_ROUNDS = 1;
/** Connect and answer, 2 s each, once more where the server has closed a kept connection; the rest for a busy machine. */
const MOST_MS = 8000 + 10_000;
const TIME_LIMIT_MS = 110_000;

const attributes = Buffer.from(nfsdAnswers[1] ?? "", "hex");
/** The same answer with `NFS3ERR_STALE` for its status. */
const stale = Buffer.concat([attributes.subarray(0, 20), encodeUint32(70)]);
const STALE_WORDS = [encodeUint32(70), encodeUint32(10_001)];

const states: readonly HandleState[] = ["good", "stale", "unknown"];

let handles = 0;
/** One that nobody has asked for: a port may be that of an earlier server, whose answers are remembered. */
const newHandle = (): string => (handles += 1).toString(16).padStart(8, "0");

/** Asks a new server twice by `handleState`, over the connection that it keeps, and once by `getAttributes`. */
async function ask(scenario: HandleScenario, count: (state: HandleState) => void): Promise<void> {
  const sent = new Map<Socket, Buffer[]>();
  const answer = ({ xid, socket }: PeerCall): void => {
    const real = Buffer.concat([encodeUint32(xid), scenario.isStale ? stale : attributes]);
    const wire = mutate(real, scenario.mutations);
    sent.set(socket, [...(sent.get(socket) ?? []), wire]);
    send(socket, wire, scenario, xid);
  };
  const peer = await startPeer({ onCall: answer });
  try {
    const place = { server: "127.0.0.1", port: peer.port };
    for (let question = 0; question < 2; question++) {
      const started = performance.now();
      const state = await handleState({ ...place, fileHandle: newHandle() });
      expect(performance.now() - started).toBeLessThan(MOST_MS);
      expect(states).toContain(state);
      count(state);
      if (state === "stale") expect([...sent.values()].some(saysStale)).toBe(true);
    }
    // Two for either question at most: the kept connection may have been closed.
    expect(peer.calls.length).toBeLessThan(5);
    const finding = await getAttributes(place, rootHandle, { limits: { stepMs: 100, totalMs: 300 } });
    if (finding.kind === "stale" || finding.kind === "badhandle")
      expect([...sent.values()].some(saysStale)).toBe(true);
  } finally {
    await peer.close();
  }
}

/** Whether what was sent on a connection holds, in a whole record, either status. */
function saysStale(wires: readonly Buffer[]): boolean {
  try {
    for (const message of new RecordAssembler().push(Buffer.concat(wires))) {
      if (STALE_WORDS.some((word) => message.includes(word))) return true;
    }
  } catch (error) {
    if (!(error instanceof RecordError)) throw error;
  }
  return false;
}

async function run(numRuns: number, rounds: fc.Arbitrary<HandleScenario[]>): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  const count = (state: HandleState): void => void (counts[state] = (counts[state] ?? 0) + 1);
  await fc.assert(
    fc.asyncProperty(rounds, async (round) => {
      await Promise.all(round.map((scenario) => ask(scenario, count)));
    }),
    { numRuns, endOnFailure: true, interruptAfterTimeLimit: TIME_LIMIT_MS, markInterruptAsFailure: true },
  );
  return counts;
}

describe(`the state of a file handle at ${LANES * (ROUNDS + SILENT_ROUNDS)} generated servers`, () => {
  it("is stale only where the server says so, and never an exception", { timeout: 120_000 }, async () => {
    const counts = await run(ROUNDS, handleScenarios(LANES, "answer", "answer", "close", "reset"));
    for (const state of states) expect(counts[state], state).toBeGreaterThan(50);
  });

  it("is found in time at servers that are silent, slow or endless", { timeout: 120_000 }, async () => {
    const counts = await run(SILENT_ROUNDS, handleScenarios(LANES, "silence", "drip", "flood"));
    expect(counts["unknown"]).toBeGreaterThan(10);
  });
});
