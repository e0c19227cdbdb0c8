import * as fc from "fast-check";
import { afterAll, beforeAll, describe as suite, expect, it } from "vitest";

import {
  describe,
  type NfsFinding,
  type ProbeLimits,
  type ProbeRequest,
  probeNfs,
} from "../../../../provider/preflight/nfs/index.js";
import type { Service } from "../../../../provider/preflight/nfs/finding.js";
import { encodeRecord } from "../../../../provider/preflight/nfs/record.js";
import { encodeUint32 } from "../../../../provider/preflight/nfs/xdr.js";
import { deniedAnswers, mountdAnswers, nfsdAnswers } from "./answers.js";
import { type Peer, type PeerCall, startPeer } from "./peer.js";
import { mutate, type Scenario, scenarios, send } from "./scenarios.js";

const LANES = 50;
/** Rounds of one case per lane: 10,000 cases in all. What ends by its time alone costs time, so few rounds have it. */
const ROUNDS = 180;
const SILENT_ROUNDS = 20;
/** The bound of either test; alone on two cores they take a tenth of it. */
const TIME_LIMIT_MS = 110_000;
const SILENT_LIMITS = { stepMs: 100, totalMs: 300 };
/** A probe ends in its time; all of them, and their peers, share one processor. */
const SLACK_MS = 10_000;

/** An nfsd, a mountd and an rpcbind, which go wrong as their scenario says. */
class Lane {
  scenario: Scenario | undefined;
  #peers: Record<Service, Peer> | undefined;

  async start(): Promise<void> {
    this.#peers = {
      nfsd: await this.#peer("nfsd"),
      mountd: await this.#peer("mountd"),
      rpcbind: await this.#peer("rpcbind"),
    };
  }

  async stop(): Promise<void> {
    for (const peer of Object.values(this.#peers ?? {})) await peer.close();
  }

  async run(next: Scenario | undefined, limits?: ProbeLimits): Promise<NfsFinding> {
    this.scenario = next;
    const request: ProbeRequest = {
      server: "127.0.0.1",
      port: this.#portOf("nfsd"),
      mountPort: serviceOf(next) === "rpcbind" ? "rpcbind" : this.#portOf("mountd"),
      rpcbindPort: this.#portOf("rpcbind"),
      path: "/srv",
      init: "/sbin/init",
      arch: "x86_64",
      limits,
    };
    const started = performance.now();
    const finding = await probeNfs(request);
    expect(performance.now() - started).toBeLessThan((limits?.totalMs ?? 5000) + SLACK_MS);
    const { text } = describe(finding, request);
    expect(text).toMatch(/^[^\p{Cc}\p{Cf}]{10,3000}$/u);
    return finding;
  }

  #portOf(service: Service): number {
    return this.#peers?.[service].port ?? 0;
  }

  #peer(service: Service): Promise<Peer> {
    return startPeer({
      onConnect: (socket) => {
        const now = this.scenario;
        if (now?.type === "stream" && now.service === service) send(socket, Buffer.from(now.data), now);
      },
      onCall: (call) => {
        const now = this.scenario;
        const message = Buffer.concat([encodeUint32(call.xid), this.#answer(service, call)]);
        if (now?.type === "mutated" && now.place.service === service && now.place.index === call.index) {
          send(call.socket, mutate(message, now.mutations), now, call.xid);
        } else if (now?.type !== "stream" || now.service !== service) {
          call.socket.write(encodeRecord(message));
        }
      },
    });
  }

  #answer(service: Service, { index }: PeerCall): Buffer {
    const mountd = this.scenario?.denies === true ? deniedAnswers : mountdAnswers;
    const answers = { nfsd: nfsdAnswers, mountd, rpcbind: [portAnswer(this.#portOf("mountd"))] }[service];
    return Buffer.from(answers[index % answers.length] ?? "", "hex");
  }
}

function serviceOf(scenario: Scenario | undefined): Service | undefined {
  return scenario?.type === "mutated" ? scenario.place.service : scenario?.service;
}

/** What rpcbind answers to GETPORT. */
function portAnswer(port: number): string {
  return `00000001${"00000000".repeat(4)}${port.toString(16).padStart(8, "0")}`;
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
    const kinds = await run(ROUNDS, scenarios(LANES, "answer", "answer", "close", "reset"));
    // A generator that reaches only the first few failures would prove little.
    expect(kinds.size).toBeGreaterThan(10);
    for (const kind of ["ok", "not-rpc", "disconnected", "nfs-error", "rpc-denied", "access-denied"]) {
      expect(kinds.get(kind), kind).toBeGreaterThan(20);
    }
  });

  it("ends in time when the peer does not: silent, slow or endless", { timeout: 120_000 }, async () => {
    const kinds = await run(
      SILENT_ROUNDS,
      scenarios(LANES, "silence", "silence", "drip", "flood"),
      SILENT_LIMITS,
    );
    expect(kinds.get("timed-out")).toBeGreaterThan(50);
  });
});
