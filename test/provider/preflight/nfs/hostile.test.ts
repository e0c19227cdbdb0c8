import { once } from "node:events";

import { describe as suite, expect, it } from "vitest";

import {
  describe,
  getAttributes,
  type NfsFinding,
  type ProbeRequest,
  probeNfs,
} from "../../../../provider/preflight/nfs/index.js";
import { encodeRecord } from "../../../../provider/preflight/nfs/record.js";
import { deniedAnswers, linkAttributes, recorded, rootAttributes, rootHandle } from "./answers.js";
import { bytes } from "./bytes.js";
import { type Peer, type PeerCall, reply, startPeer } from "./peer.js";
import { usePeers } from "./peers.js";

const { listen } = usePeers();

const NFS = 100_003;
const MOUNT = 100_005;
const OK_VERIFIER = "00000001 00000000 00000000 00000000";

/** A server that answers as ganesha did, but for the calls that `instead` takes over (by returning true). */
function server(instead: (call: PeerCall) => boolean): Promise<Peer> {
  return listen({ onCall: (call) => void (instead(call) || call.socket.write(reply(call, recorded(call)))) });
}

/** A server whose answer to one procedure is another, given from the message type on. */
function answering(program: number, procedure: number, body: string): Promise<Peer> {
  return server((call) => {
    const taken = call.program === program && call.procedure === procedure;
    if (taken) call.socket.write(reply(call, body));
    return taken;
  });
}

/** A server that denies every mount and exports `/srv`. */
const denying = (): Promise<Peer> =>
  server((call) => {
    if (call.program !== MOUNT) return false;
    call.socket.write(reply(call, deniedAnswers[call.index] ?? ""));
    return true;
  });

const request = ({ port }: Peer, more: Partial<ProbeRequest> = {}): ProbeRequest => ({
  server: "127.0.0.1",
  port,
  mountPort: port,
  path: "/srv",
  arch: "x86_64",
  limits: { stepMs: 150, totalMs: 5000 },
  ...more,
});

async function probe(peer: Peer, more: Partial<ProbeRequest> = {}): Promise<NfsFinding & { words: string }> {
  const asked = request(peer, more);
  const finding = await probeNfs(asked);
  const { input, text } = describe(finding, asked);
  return { ...finding, words: `${input}: ${text}` };
}

suite("the probe of a server that answers", () => {
  it("finds the root and its init, and unmounts", async () => {
    const peer = await server(() => false);
    expect(await probe(peer)).toMatchObject({
      kind: "ok",
      rootFileHandle: rootHandle,
      mountPort: peer.port,
      root: { type: "directory", mode: 0o755 },
      init: { path: "/sbin/init", resolvedPath: "/bin/busybox", format: "elf" },
    });
    await expect
      .poll(() => peer.calls.filter((call) => call.program === MOUNT).map((c) => c.procedure))
      .toEqual([0, 1, 3]);
    await expect.poll(() => peer.sockets.every((socket) => socket.destroyed)).toBe(true);
  });

  it("gives every call a transaction id of its own", async () => {
    const peer = await server(() => false);
    await probe(peer);
    expect(new Set(peer.calls.map(({ xid }) => xid)).size).toBe(peer.calls.length);
  });

  it("unmounts as well when init is missing", async () => {
    const peer = await answering(NFS, 3, `${OK_VERIFIER} 00000000 00000002 00000000`);
    expect(await probe(peer)).toMatchObject({
      kind: "init-missing",
      tried: ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"],
      words: expect.stringContaining("nfsPath: 127.0.0.1:/srv holds no init program"),
    });
    await expect.poll(() => peer.calls.at(-1)).toMatchObject({ program: MOUNT, procedure: 3 });
  });

  it("takes an answer in fragments of one byte, sent one by one", async () => {
    const peer = await server((call) => {
      const message = reply(call, recorded(call)).subarray(4);
      message.forEach((byte, at) => {
        const fragment = encodeRecord(Buffer.from([byte]));
        if (at < message.length - 1) fragment.writeUInt8(0, 0);
        for (const piece of fragment) call.socket.write(Buffer.from([piece]));
      });
      return true;
    });
    expect(await probe(peer, { limits: { stepMs: 2000, totalMs: 5000 } })).toMatchObject({ kind: "ok" });
  });

  it("passes over answers to other calls", async () => {
    const peer = await server((call) => {
      call.socket.write(reply({ xid: (call.xid + 1) % 2 ** 32 }, recorded(call)));
      return false;
    });
    expect(await probe(peer)).toMatchObject({ kind: "ok" });
  });

  it("asks for attributes that LOOKUP left out", async () => {
    const peer = await server((call) => {
      if (call.program !== NFS || call.procedure === 0) return false;
      const body = call.procedure === 3 ? "00000004 aabbccdd 00000000 00000000" : rootAttributes;
      call.socket.write(reply(call, `${OK_VERIFIER} 00000000 00000000 ${body}`));
      return true;
    });
    // GETATTR gives the directory's attributes each time, so init is a directory.
    expect(await probe(peer)).toMatchObject({ kind: "init-not-executable", why: "it is a directory" });
    expect(peer.calls.filter((call) => call.program === NFS && call.procedure === 1).length).toBeGreaterThan(
      1,
    );
  });

  it("asks rpcbind for the mount port", async () => {
    const peer = await server(() => false);
    const rpcbind = await listen({
      onCall: (call) =>
        call.socket.write(reply(call, `${OK_VERIFIER} 00000000 ${peer.port.toString(16).padStart(8, "0")}`)),
    });
    expect(await probe(peer, { mountPort: "rpcbind", rpcbindPort: rpcbind.port })).toMatchObject({
      kind: "ok",
      mountPort: peer.port,
    });
    expect(rpcbind.calls[0]?.message.subarray(-16)).toEqual(bytes("000186a5 00000003 00000006 00000000"));
  });

  it.skipIf(process.getuid?.() !== 0)(
    "uses a source port below 1024 only where the guest will (needs root)",
    async () => {
      const peer = await server(() => false);
      await probe(peer);
      expect(peer.sockets.every((socket) => (socket.remotePort ?? 0) >= 1024)).toBe(true);
      const routed = await server(() => false);
      await probe(routed, { guestNetwork: "routed" });
      expect(routed.sockets.every((socket) => (socket.remotePort ?? 0) < 1024)).toBe(true);
    },
  );
});

suite("the probe of a server that refuses", () => {
  it.each([
    ["00000000 00000003 00000004", "RPC_MISMATCH: RPC versions 3 to 4"],
    ["00000001 00000001", "AUTH_BADCRED"],
    ["00000001 00000005", "AUTH_TOOWEAK"],
  ])("reports the RPC denial %s", async (rest, reason) => {
    const peer = await answering(MOUNT, 1, `00000001 00000001 ${rest}`);
    expect(await probe(peer)).toMatchObject({ kind: "rpc-denied", step: "MNT", service: "mountd", reason });
  });

  it.each([
    ["00000001", { kind: "program-not-registered", program: "nfsd", certain: true }],
    ["00000002 00000004 00000004", { kind: "version-mismatch", wanted: 3, lowest: 4, highest: 4 }],
    ["00000003", { kind: "rpc-error", status: "PROC_UNAVAIL" }],
    ["00000004", { kind: "rpc-error", status: "GARBAGE_ARGS" }],
    ["00000005", { kind: "rpc-error", status: "SYSTEM_ERR" }],
  ])("reports accept_stat %s", async (status, expected) => {
    const peer = await answering(NFS, 0, `00000001 00000000 00000000 00000000 ${status}`);
    expect(await probe(peer)).toMatchObject({ ...expected, words: expect.stringContaining("nfsPort: ") });
  });

  it.each([
    [0, "program-not-registered", /nfsMountPort: rpcbind .* knows no mount service version 3/],
    [70_000, "not-rpc", /nfsMountPort: .* names port 70000/],
  ])("reports that rpcbind answers with port %i", async (port, kind, words) => {
    const peer = await server(() => false);
    const rpcbind = await listen({
      onCall: (call) =>
        call.socket.write(reply(call, `${OK_VERIFIER} 00000000 ${port.toString(16).padStart(8, "0")}`)),
    });
    const finding = await probe(peer, { mountPort: "rpcbind", rpcbindPort: rpcbind.port });
    expect(finding).toMatchObject({ kind, certain: true, words: expect.stringMatching(words) });
  });

  it("lists the exports when the path is none of them", async () => {
    expect(await probe(await denying(), { path: "/nope" })).toMatchObject({
      kind: "export-unknown",
      exports: ["/srv"],
      words: expect.stringContaining('It exports "/srv"'),
    });
  });

  it("reports denied access when the path, or a folder above it, is exported", async () => {
    for (const path of ["/srv", "/srv/guest"]) {
      expect(await probe(await denying(), { path })).toMatchObject({
        kind: "access-denied",
        step: "MNT",
        status: "MNT3ERR_ACCES",
        needsPrivilegedPort: false,
      });
    }
  });

  it("is not certain of a denial when the guest asks from another address", async () => {
    expect(await probe(await denying(), { guestNetwork: "routed" })).toMatchObject({
      kind: "access-denied",
      certain: false,
    });
  });

  it("reports an unknown export without a list when the server gives none", async () => {
    const peer = await server((call) => {
      if (call.program !== MOUNT || call.procedure === 0) return false;
      const body = call.procedure === 1 ? "00000002" : "";
      if (body === "") call.socket.destroy();
      else call.socket.write(reply(call, `${OK_VERIFIER} 00000000 ${body}`));
      return true;
    });
    expect(await probe(peer)).toMatchObject({
      kind: "export-unknown",
      certain: true,
      exports: undefined,
      words: expect.stringContaining("does not list its exports"),
    });
  });

  it.each([
    [20, { kind: "not-a-directory" }],
    [5, { kind: "nfs-error", step: "MNT", status: "MNT3ERR_IO", certain: false }],
    [10_006, { kind: "nfs-error", step: "MNT", status: "MNT3ERR_SERVERFAULT" }],
  ])("reports mountstat3 %i", async (status, expected) => {
    const peer = await answering(MOUNT, 1, `${OK_VERIFIER} 00000000 ${status.toString(16).padStart(8, "0")}`);
    expect(await probe(peer)).toMatchObject(expected);
  });

  it("reports an export for Kerberos only", async () => {
    const peer = await answering(
      MOUNT,
      1,
      `${OK_VERIFIER} 00000000 00000000 00000004 aabbccdd 00000001 0005f3df`,
    );
    expect(await probe(peer)).toMatchObject({ kind: "security-flavor", flavors: [390_111] });
  });

  it.each([
    [70, { kind: "stale", status: "NFS3ERR_STALE" }],
    [10_001, { kind: "stale", status: "NFS3ERR_BADHANDLE" }],
    [13, { kind: "access-denied", step: "GETATTR", at: "/" }],
    [10_008, { kind: "nfs-error", status: "NFS3ERR_JUKEBOX", certain: false }],
  ])("reports nfsstat3 %i of the root", async (status, expected) => {
    const peer = await answering(NFS, 1, `${OK_VERIFIER} 00000000 ${status.toString(16).padStart(8, "0")}`);
    expect(await probe(peer)).toMatchObject(expected);
  });

  it("reports a root that is a link", async () => {
    const peer = await answering(NFS, 1, `${OK_VERIFIER} 00000000 00000000 ${linkAttributes}`);
    expect(await probe(peer)).toMatchObject({ kind: "not-a-directory" });
  });
});

suite("the probe of a hostile peer", () => {
  const NULL_STEP = { service: "nfsd", step: "NULL" };

  it.each([
    ["an HTTP server", "HTTP/1.1 400 Bad Request\r\n\r\n", /answers with text that begins with "HTTP"/],
    ["an SSH server", "SSH-2.0-OpenSSH_9.2\r\n", /answers with text/],
    ["a record of 2 GiB", bytes("ffffffff"), /announces a record of 2147483647 bytes/],
    ["empty fragments without end", Buffer.alloc(65_536), /more than 1024 fragments/],
    ["an empty record", bytes("80000000"), /ends after 0 bytes/],
    ["a record of one byte", bytes("80000001 00"), /short/],
  ])("reports %s", async (_name, banner, found) => {
    const peer = await listen({ onConnect: (socket) => void socket.write(banner) });
    const finding = await probe(peer);
    expect(finding).toMatchObject({
      kind: "not-rpc",
      certain: true,
      ...NULL_STEP,
      words: expect.stringMatching(found),
    });
    expect(finding.words).toMatch(/^nfsPort: /);
  });

  it("reports an echo", async () => {
    const peer = await listen({ onConnect: (socket) => void socket.pipe(socket) });
    expect(await probe(peer)).toMatchObject({
      kind: "not-rpc",
      found: "a message of type 0 where a reply is due",
    });
  });

  it("reports answers to other calls only, few or without end", async () => {
    const silent = await server((call) => {
      call.socket.write(reply({ xid: (call.xid ^ 1) >>> 0 }, recorded(call)));
      return true;
    });
    expect(await probe(silent)).toMatchObject({
      kind: "not-rpc",
      found: expect.stringContaining("transaction ids"),
    });
    const endless = await server((call) => {
      for (let count = 0; count < 1000; count += 1) call.socket.write(reply({ xid: count }, recorded(call)));
      return true;
    });
    expect(await probe(endless)).toMatchObject({
      kind: "not-rpc",
      found: expect.stringContaining("transaction ids"),
    });
  });

  it("reports silence", async () => {
    const peer = await listen({});
    expect(await probe(peer)).toMatchObject({
      kind: "timed-out",
      ...NULL_STEP,
      seconds: 0.15,
      receivedBytes: 0,
      certain: true,
      words: expect.stringContaining("did not answer NULL within 0.15 s"),
    });
  });

  it("reports an answer that comes byte by byte and never ends", async () => {
    const timers: NodeJS.Timeout[] = [];
    const peer = await listen({
      onConnect: (socket) => {
        socket.write(bytes("80000100"));
        const timer = setInterval(() => socket.write(Buffer.alloc(1)), 10);
        timers.push(timer);
        socket.once("close", () => clearInterval(timer));
      },
    });
    const finding = await probe(peer);
    expect(finding).toMatchObject({ kind: "timed-out", words: expect.stringContaining("did not finish it") });
    expect(timers).toHaveLength(1);
  });

  it("reports half an answer", async () => {
    const peer = await server((call) => {
      call.socket.end(reply(call, recorded(call)).subarray(0, 20));
      return true;
    });
    expect(await probe(peer)).toMatchObject({
      kind: "disconnected",
      ...NULL_STEP,
      receivedBytes: 20,
      words: expect.stringContaining("in the middle of its answer"),
    });
  });

  it("reports a connection that is closed at once, or reset", async () => {
    const closing = await listen({ onConnect: (socket) => void socket.end() });
    expect(await probe(closing)).toMatchObject({ kind: "disconnected", receivedBytes: 0 });
    const resetting = await server((call) => {
      call.socket.resetAndDestroy();
      return true;
    });
    expect(await probe(resetting)).toMatchObject({ kind: "disconnected", ...NULL_STEP });
  });

  it("reports a port where nobody listens", async () => {
    const peer = await startPeer({});
    await peer.close();
    expect(await probe(peer)).toMatchObject({
      kind: "refused",
      service: "nfsd",
      words: expect.stringMatching(/^nfsPort: nothing listens at 127\.0\.0\.1 port/),
    });
  });

  it("names the mount service when only that fails", async () => {
    const nfsd = await server(() => false);
    const mountd = await listen({});
    expect(await probe(nfsd, { mountPort: mountd.port })).toMatchObject({
      kind: "timed-out",
      service: "mountd",
      words: expect.stringMatching(/^nfsMountPort: /),
    });
  });

  it("gives up links that lead in a circle", async () => {
    const peer = await server((call) => {
      if (call.program !== NFS || (call.procedure !== 3 && call.procedure !== 5)) return false;
      call.socket.write(
        reply(
          call,
          call.procedure === 3
            ? `${OK_VERIFIER} 00000000 00000000 00000004 aabbccdd 00000001 ${linkAttributes} 00000000`
            : `${OK_VERIFIER} 00000000 00000000 00000000 00000001 78000000`,
        ),
      );
      return true;
    });
    expect(await probe(peer, { init: "/x" })).toMatchObject({
      kind: "init-not-executable",
      asked: true,
      why: expect.stringContaining("circle"),
      words: expect.stringMatching(/^kernelArgs: /),
    });
    expect(peer.calls.length).toBeLessThan(100);
  });

  it("gives up a path without end", async () => {
    const peer = await server((call) => {
      if (call.program !== NFS || call.procedure !== 3) return false;
      const directory = recorded({ ...call, index: 2 });
      call.socket.write(reply(call, directory));
      return true;
    });
    expect(await probe(peer, { init: "/a".repeat(2000) })).toMatchObject({ kind: "init-not-executable" });
    expect(peer.calls.length).toBeLessThan(300);
  });

  it("bounds the whole probe, however alive the server seems", async () => {
    const peer = await server((call) => {
      setTimeout(() => call.socket.write(reply(call, recorded(call))), 100);
      return true;
    });
    const finding = await probe(peer, { limits: { stepMs: 150, totalMs: 450 } });
    expect(finding).toMatchObject({ kind: "timed-out", bound: "probe", seconds: 0.45, certain: false });
    expect(peer.calls.length).toBeLessThan(7);
  });

  it("is not certain of a timeout once the service has answered", async () => {
    const peer = await server((call) => call.program === MOUNT && call.procedure === 1);
    expect(await probe(peer)).toMatchObject({
      kind: "timed-out",
      step: "MNT",
      bound: "step",
      certain: false,
    });
  });

  it("does not take its own being busy for a slow server", async () => {
    const peer = await server((call) => {
      if (call.procedure !== 0 || call.program !== NFS) return false;
      call.socket.write(reply(call, recorded(call)));
      for (const end = performance.now() + 400; performance.now() < end;);
      return true;
    });
    expect(await probe(peer)).toMatchObject({ kind: "ok" });
  });

  it("keeps a server's words from the terminal", async () => {
    const peer = await server((call) => {
      if (call.program !== MOUNT || call.procedure === 0) return false;
      const list = "00000001 00000005 2f1b5b32 4a000000 00000000 00000000";
      call.socket.write(reply(call, `${OK_VERIFIER} 00000000 ${call.procedure === 1 ? "00000002" : list}`));
      return true;
    });
    const { words } = await probe(peer);
    expect(words).toContain("u001b[2J");
    // eslint-disable-next-line no-control-regex
    expect(words).not.toMatch(/[\u0000-\u001f]/);
  });

  it("ends when it is aborted, before it begins and in the middle, with the signal's reason", async () => {
    const reason = new Error("the engine is gone");
    const peer = await listen({});
    await expect(probe(peer, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const controller = new AbortController();
    const pending = probe(peer, { signal: controller.signal, limits: { stepMs: 60_000, totalMs: 60_000 } });
    await expect.poll(() => peer.calls.length).toBe(1);
    controller.abort(reason);
    await expect(pending).rejects.toBe(reason);
    await expect.poll(() => peer.sockets.every((socket) => socket.destroyed)).toBe(true);
  });
});

suite("a file handle's attributes", () => {
  it.each([
    [70, { kind: "stale" }],
    [10_001, { kind: "badhandle" }],
    [10_006, { kind: "failed", status: "NFS3ERR_SERVERFAULT" }],
  ])("reports nfsstat3 %i", async (status, expected) => {
    const peer = await answering(NFS, 1, `${OK_VERIFIER} 00000000 ${status.toString(16).padStart(8, "0")}`);
    expect(await getAttributes({ server: "127.0.0.1", port: peer.port }, rootHandle)).toEqual(expected);
  });

  it("reports a server that is gone", async () => {
    const peer = await startPeer({});
    await peer.close();
    expect(await getAttributes({ server: "127.0.0.1", port: peer.port }, rootHandle)).toMatchObject({
      kind: "unreachable",
      finding: { kind: "refused", service: "nfsd" },
    });
  });

  it("refuses what is no file handle", async () => {
    for (const handle of ["", "abc", "zz", "00".repeat(65)]) {
      await expect(getAttributes({ server: "127.0.0.1", port: 1 }, handle)).rejects.toThrow(RangeError);
    }
  });

  it("ends by its signal", async () => {
    const peer = await listen({});
    const controller = new AbortController();
    const pending = getAttributes({ server: "127.0.0.1", port: peer.port }, rootHandle, {
      signal: controller.signal,
    });
    await expect.poll(() => peer.sockets.length).toBe(1);
    const [socket] = peer.sockets;
    controller.abort(new Error("enough"));
    await expect(pending).rejects.toThrow("enough");
    if (socket !== undefined && !socket.destroyed) await once(socket, "close");
  });
});
