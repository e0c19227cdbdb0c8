import { afterEach, describe, expect, it } from "vitest";
import { handleState } from "../../../../provider/preflight/nfs/index.js";
import { rootAttributes, rootHandle } from "./answers.js";
import { type Peer, reply, startPeer } from "./peer.js";

const ACCEPTED = "000000010000000000000000000000000000000000000000".slice(0, 40);
const GOOD = `${ACCEPTED}00000000${rootAttributes}`;
const failed = (status: number) => `${ACCEPTED}${status.toString(16).padStart(8, "0")}`;

/** The hex digits of a handle that no other test has. */
const handleOf = (index: number) => index.toString(16).padStart(16, "0");

describe("the state of a file handle", () => {
  let peer: Peer | undefined;
  afterEach(async () => await peer?.close());
  const answering = async (answer: string) => {
    peer = await startPeer({ onCall: (call) => call.socket.write(reply(call, answer)) });
    return { server: "127.0.0.1", port: peer.port };
  };

  it.each([
    ["good", "NFS3_OK", GOOD],
    ["stale", "NFS3ERR_STALE", failed(70)],
    ["stale", "NFS3ERR_BADHANDLE", failed(10_001)],
    ["unknown", "NFS3ERR_IO", failed(5)],
    ["unknown", "garbage", "00"],
  ])("is %s at %s", async (state, _, answer) => {
    const place = await answering(answer);
    expect(await handleState({ ...place, fileHandle: rootHandle })).toBe(state);
  });

  it("takes one connection for 300 VMs, and one question for those of one root", async () => {
    const place = await answering(GOOD);
    const states = [];
    for (let vm = 0; vm < 300; vm++) states.push(handleState({ ...place, fileHandle: handleOf(vm % 100) }));
    expect(new Set(await Promise.all(states))).toEqual(new Set(["good"]));
    expect(peer?.sockets).toHaveLength(1);
    expect(peer?.calls).toHaveLength(100);
  });

  const noRoot = process.getuid?.() === 0 ? "" : " (skipped: not root)";
  it.skipIf(noRoot !== "")(
    `is asked for from a port below 1024, as an export that is \`secure\` wants it${noRoot}`,
    async () => {
      const place = await answering(GOOD);
      expect(await handleState({ ...place, fileHandle: rootHandle })).toBe("good");
      expect(peer?.sockets[0]?.remotePort).toBeLessThan(1024);
    },
  );

  it("asks again on another connection when the server has closed the kept one, as a restart does", async () => {
    const place = await answering(GOOD);
    expect(await handleState({ ...place, fileHandle: handleOf(1) })).toBe("good");
    peer?.sockets[0]?.destroy();
    expect(await handleState({ ...place, fileHandle: handleOf(2) })).toBe("good");
    expect(peer?.sockets).toHaveLength(2);
  });

  it("says nothing of the handle when nobody answers, and costs its time once for all VMs", async () => {
    peer = await startPeer({});
    const place = { server: "127.0.0.1", port: peer.port };
    const started = performance.now();
    const states = [];
    for (let vm = 0; vm < 50; vm++) states.push(handleState({ ...place, fileHandle: handleOf(vm) }));
    expect(new Set(await Promise.all(states))).toEqual(new Set(["unknown"]));
    expect(performance.now() - started).toBeLessThan(4000);
    expect(peer.calls).toHaveLength(1);
  });

  it("waits 5 s for a server that answers slowly, however many VMs have their root there", async () => {
    peer = await startPeer({
      onCall: (call) => void setTimeout(() => call.socket.write(reply(call, GOOD)), 1000),
    });
    const place = { server: "127.0.0.1", port: peer.port };
    const started = performance.now();
    const states = [];
    for (let vm = 0; vm < 50; vm++) states.push(handleState({ ...place, fileHandle: handleOf(vm) }));
    expect(new Set(await Promise.all(states))).toEqual(new Set(["good", "unknown"]));
    expect(performance.now() - started).toBeLessThan(10_000);
    expect(peer.calls.length).toBeLessThan(8);
    // And keeps no connection that nobody uses.
    await expect.poll(() => peer?.sockets.every((socket) => socket.destroyed), { timeout: 5000 }).toBe(true);
  });

  it("says nothing of the handle when nothing listens", async () => {
    const { port } = await answering(GOOD);
    await peer?.close();
    peer = undefined;
    expect(await handleState({ server: "127.0.0.1", port, fileHandle: handleOf(1) })).toBe("unknown");
  });
});
