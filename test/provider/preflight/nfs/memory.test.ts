import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { afterEach, describe, expect, it } from "vitest";

import {
  describe as describeFinding,
  type ProbeRequest,
  probeNfs,
} from "../../../../provider/preflight/nfs/index.js";
import { startPeer } from "./peer.js";

const MEGABYTE = 1024 * 1024;

/** A server in a process of its own, so that what it sends does not count as ours. It prints its port. */
const SERVER = `
const stream = process.argv[1];
const bytes = (hex) => Buffer.from(hex, "hex");
const flood = (socket, chunk) => {
  const more = () => { while (!socket.destroyed && socket.write(chunk)); };
  socket.on("drain", more); more();
};
require("node:net").createServer((socket) => {
  socket.on("error", () => undefined);
  socket.resume();
  if (stream === "endless record") { socket.write(bytes("8003ffff")); flood(socket, Buffer.alloc(65536)); }
  if (stream === "endless strays") {
    const stray = Buffer.alloc(60004); bytes("8000ea60" + "00000000" + "00000001" + "00000000".repeat(4)).copy(stray);
    flood(socket, stray);
  }
  if (stream === "endless fragments") flood(socket, Buffer.alloc(65536, bytes("0000000400000000")));
  if (stream === "almost a record") { socket.write(bytes("8003ffff")); socket.write(Buffer.alloc(0x3fffe)); }
  if (stream === "flood after a call") {
    socket.once("data", (call) => {
      socket.write(Buffer.concat([bytes("80000018"), call.subarray(4, 8), bytes("00000001" + "00000000".repeat(4))]));
      flood(socket, Buffer.alloc(65536));
    });
  }
}).listen(0, "127.0.0.1", function () { console.log(this.address().port); });
`;

let child: ChildProcess | undefined;
afterEach(() => {
  child?.kill("SIGKILL");
});

async function startServer(...args: readonly string[]): Promise<number> {
  child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  if (child.stdout === null) throw new Error("no output");
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  return Number(line.toString());
}

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** Twice, since buffers that one collection gave up are freed beside it. */
function liveBytes(): number {
  collectGarbage();
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** The same once it no longer falls. */
async function settledBytes(): Promise<number> {
  for (let last = liveBytes(); ;) {
    await nextTurn();
    const now = liveBytes();
    if (now >= last) return now;
    last = now;
  }
}

/** Probes twice, and returns what the second came to, the most that it held meanwhile, and what it left, in bytes. */
async function measure(request: ProbeRequest, between?: () => Promise<void>) {
  // Once before, so that what is loaded and compiled on the way does not count.
  await probeNfs(request);
  await between?.();
  const before = await settledBytes();
  let most = 0;
  const timer = setInterval(() => (most = Math.max(most, liveBytes() - before)), 20);
  const finding = await probeNfs(request);
  clearInterval(timer);
  return { finding, most, left: (await settledBytes()) - before };
}

describe("a probe's memory", () => {
  it.each([
    ["endless record", "not-rpc"],
    ["endless strays", "not-rpc"],
    ["endless fragments", "not-rpc"],
    ["almost a record", "timed-out"],
    ["flood after a call", "timed-out"],
  ])("stays below a megabyte: %s", async (stream, kind) => {
    const port = await startServer("-e", SERVER, stream);
    // nfsd is the flood; mountd is a port that accepts and says nothing, so that the flooded connection stays open.
    const silent = await startPeer({});
    const { finding, most, left } = await measure(
      {
        server: "127.0.0.1",
        port,
        mountPort: silent.port,
        path: "/srv",
        limits: { stepMs: 300, totalMs: 1000 },
      },
      () => expect.poll(() => silent.sockets.every((socket) => socket.destroyed)).toBe(true),
    );
    await silent.close();
    expect(finding.kind).toBe(kind);
    expect(most).toBeLessThan(MEGABYTE);
    expect(left).toBeLessThan(MEGABYTE);
  });

  it.each([
    ["exports", 1023, "export-unknown"],
    ["exports", 1, "export-unknown"],
    ["links", 4000, "init-missing"],
    ["links", 85, "init-missing"],
    ["links", 1, "init-not-executable"],
  ])(
    "stays below a megabyte, and the message short: %s with names of %i bytes",
    async (words, bytes, kind) => {
      const port = await startServer(
        "--import",
        "tsx",
        join(__dirname, "long-words.ts"),
        words,
        String(bytes),
      );
      // A thousand calls, while garbage is collected all the time: not the 5 s of a probe on a busy machine.
      const limits = { stepMs: 25_000, totalMs: 25_000 };
      const request = { server: "127.0.0.1", port, mountPort: port, path: "/srv", limits };
      const { finding, most, left } = await measure(request);
      expect(finding.kind).toBe(kind);
      expect(describeFinding(finding, request).text.length).toBeLessThan(3000);
      expect(most).toBeLessThan(MEGABYTE);
      expect(left).toBeLessThan(MEGABYTE);
    },
  );
});
