import { afterEach, describe, expect, it } from "vitest";

import { forgetProbes, type ProbeRequest, probeOnce } from "../../../../provider/preflight/nfs/index.js";
import { recorded } from "./answers.js";
import { type Peer, reply } from "./peer.js";
import { usePeers } from "./peers.js";

const NFS = 100_003;

const { listen, rightServer } = usePeers();
afterEach(forgetProbes);

const request = ({ port }: Peer, more: Partial<ProbeRequest> = {}): ProbeRequest => ({
  server: "127.0.0.1",
  port,
  mountPort: port,
  path: "/srv",
  ...more,
});

const pings = (peer: Peer): number =>
  peer.calls.filter(({ program, procedure }) => program === NFS && procedure === 0).length;

describe("shared probes", () => {
  it("ask once for 300 VMs on one export, at the same time and later", async () => {
    const peer = await rightServer();
    const findings = await Promise.all(Array.from({ length: 299 }, () => probeOnce(request(peer))));
    findings.push(await probeOnce(request(peer)));
    expect(new Set(findings)).toHaveLength(1);
    expect(findings[0]).toMatchObject({ kind: "ok" });
    expect(pings(peer)).toBe(1);
  });

  it("ask once for each export, init program and processor", async () => {
    const peer = await rightServer();
    const findings = await Promise.all([
      probeOnce(request(peer)),
      probeOnce(request(peer, { path: "/srv/other" })),
      probeOnce(request(peer, { arch: "aarch64", init: "/sbin/init" })),
      probeOnce(request(peer, { init: "/sbin/init" })),
      probeOnce(request(peer, { init: "/sbin/init" })),
    ]);
    expect(findings.map(({ kind }) => kind)).toEqual(["ok", "ok", "init-wrong-arch", "ok", "ok"]);
    expect(pings(peer)).toBe(4);
  });

  it("wait for a dead server once, whatever its exports", async () => {
    const peer = await listen({});
    const limits = { stepMs: 200, totalMs: 1000 };
    const paths = Array.from({ length: 50 }, (_, index) => `/srv/${index}`);
    const findings = await Promise.all(paths.map((path) => probeOnce(request(peer, { path, limits }))));
    findings.push(await probeOnce(request(peer, { path: "/srv/late", limits })));
    expect(findings.every(({ kind }) => kind === "timed-out")).toBe(true);
    expect(peer.sockets).toHaveLength(1);
  });

  it("run side by side for different servers", async () => {
    const first = await listen({});
    const second = await listen({});
    const controller = new AbortController();
    const both = [first, second].map((peer) => probeOnce(request(peer, { signal: controller.signal })));
    await expect.poll(() => [first, second].map(({ calls }) => calls.length)).toEqual([1, 1]);
    controller.abort(new Error("seen enough"));
    await expect(Promise.all(both)).rejects.toThrow("seen enough");
  });

  it("go on for the others when one caller gives up", async () => {
    const peer = await listen({
      onCall: (call) => void setTimeout(() => call.socket.write(reply(call, recorded(call))), 20),
    });
    const controller = new AbortController();
    const abandoned = probeOnce(request(peer, { signal: controller.signal }));
    const kept = probeOnce(request(peer));
    controller.abort(new Error("not me"));
    await expect(abandoned).rejects.toThrow("not me");
    expect(await kept).toMatchObject({ kind: "ok" });
  });

  it("ask again once they are forgotten", async () => {
    const peer = await rightServer();
    await probeOnce(request(peer));
    forgetProbes();
    await probeOnce(request(peer));
    expect(pings(peer)).toBe(2);
  });
});
