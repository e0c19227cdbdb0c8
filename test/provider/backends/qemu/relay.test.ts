import { ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { relayCommand, relayEnvironment } from "../../../../provider/backends/qemu/relay.js";
import { freePort } from "../../../lab/nfs.js";

/** What a test has opened, closed after it. */
const opened: (() => void)[] = [];

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "microvm-relay-"));
});

afterEach(async () => {
  for (const close of opened.splice(0)) close();
  await rm(folder, { recursive: true });
});

/** A server on loopback that hands each connection on. */
async function serve(onConnection: (socket: Socket) => void, port = 0): Promise<number> {
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    opened.push(() => socket.destroy());
    socket.on("error", () => undefined);
    onConnection(socket);
  });
  opened.push(() => server.close());
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

/** A relay to a port of loopback, and the guest's end of its connection, as QEMU gives it: a TCP socket as standard input. */
async function relayTo(port: number): Promise<{ guest: Socket; relay: ChildProcess }> {
  let guest: Socket | undefined;
  const relay = new Promise<ChildProcess>((resolve) => {
    const listener = createServer({ pauseOnConnect: true }, (connection) => {
      const child = spawn("/bin/sh", ["-c", `exec ${relayCommand({ host: "127.0.0.1", port })}`], {
        env: {
          PATH: process.env["PATH"],
          ...relayEnvironment(process.execPath, join(folder, "it's, a folder")),
        },
        stdio: [connection, connection, connection],
      });
      opened.push(() => child.kill("SIGKILL"));
      connection.destroy();
      listener.close();
      resolve(child);
    });
    listener.listen(0, "127.0.0.1", () => {
      const own = connect({
        port: (listener.address() as AddressInfo).port,
        host: "127.0.0.1",
        allowHalfOpen: true,
      });
      opened.push(() => own.destroy());
      own.on("error", () => undefined);
      guest = own;
    });
  });
  const child = await relay;
  if (guest === undefined) throw new Error("nobody has connected");
  return { guest, relay: child };
}

/** All that comes until the other side ends its direction, or the connection is cut off; the own direction stays open. */
async function all(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
  return await new Promise((resolve) => {
    socket.once("end", () => resolve(text));
    socket.once("close", () => resolve(text));
  });
}

const MIB = 2 ** 20;
/** On a busy host, too. */
const SOON = { timeout: 20_000 };

function residentMiB(pid: number | undefined): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}

describe("a relay", () => {
  it("carries words both ways, and ends when the guest and the server have ended", async () => {
    const port = await serve((socket) => socket.pipe(socket));
    const { guest, relay } = await relayTo(port);
    const exit = once(relay, "exit");
    guest.end("hello");
    expect(await all(guest)).toBe("hello");
    expect(await exit).toEqual([0, null]);
  });

  it("lets the server answer after the guest has ended its own direction", async () => {
    const port = await serve((socket) => {
      let asked = "";
      socket.on("data", (chunk: Buffer) => (asked += chunk.toString()));
      socket.on("end", () => socket.end(`${asked} is all`));
    });
    const { guest } = await relayTo(port);
    guest.end("this");
    expect(await all(guest)).toBe("this is all");
  });

  it("lets the guest speak after the server has ended its own direction", async () => {
    let server: Socket | undefined;
    const port = await serve((socket) => (server = socket));
    const { guest } = await relayTo(port);
    await expect.poll(() => server, SOON).toBeDefined();
    if (server === undefined) throw new Error("the relay has not connected");
    server.end("last words");
    expect(await all(guest)).toBe("last words");
    guest.end("and mine");
    expect(await all(server)).toBe("and mine");
  });

  it("carries 64 MiB unchanged both ways at once, and does not grow by it", async () => {
    const size = 64 * MIB;
    const block = Buffer.alloc(MIB);
    for (let at = 0; at < block.length; at += 4) block.writeUInt32BE(at, at);
    const port = await serve((socket) => socket.pipe(socket));
    const { guest, relay } = await relayTo(port);
    let received = 0;
    let different = 0;
    let before: number | undefined;
    guest.on("data", (chunk: Buffer) => {
      for (let from = 0; from < chunk.length;) {
        const at = (received + from) % MIB;
        const length = Math.min(chunk.length - from, MIB - at);
        if (chunk.compare(block, at, at + length, from, from + length) !== 0) different += 1;
        from += length;
      }
      received += chunk.length;
      // The first MiB, and with it all that the relay is made of, has passed.
      if (received >= MIB) before ??= residentMiB(relay.pid);
    });
    const end = once(guest, "end");
    for (let sent = 0; sent < size; sent += block.length) {
      if (!guest.write(block)) await once(guest, "drain");
    }
    await expect.poll(() => received, SOON).toBe(size);
    expect(residentMiB(relay.pid) - (before ?? 0)).toBeLessThan(16);
    guest.end();
    await end;
    expect({ received, different }).toEqual({ received: size, different: 0 });
  });

  it("holds no more than a little of what the other side does not take", async () => {
    let server: Socket | undefined;
    const port = await serve((socket) => {
      socket.pause();
      server = socket;
    });
    const { guest, relay } = await relayTo(port);
    await expect.poll(() => server, SOON).toBeDefined();
    const before = residentMiB(relay.pid);
    const block = Buffer.alloc(MIB);
    // The kernel takes some MiB in its buffers of four sockets.
    for (let sent = 0; sent < 64; sent += 1) guest.write(block);
    await expect.poll(() => guest.writableLength, SOON).toBeLessThan(64 * MIB);
    let waiting = -1;
    await expect
      .poll(() => waiting === (waiting = guest.writableLength), { interval: 200, ...SOON })
      .toBe(true);
    expect(waiting).toBeGreaterThan(32 * MIB);
    expect(residentMiB(relay.pid) - before).toBeLessThan(16);
    let taken = 0;
    server?.on("data", (chunk: Buffer) => (taken += chunk.length)).resume();
    await expect.poll(() => taken, SOON).toBe(64 * MIB);
  });

  it("waits a while for a server that is being restarted", async () => {
    const port = await freePort();
    const { guest } = await relayTo(port);
    guest.end("hello");
    const answer = all(guest);
    await delay(1500);
    await serve((socket) => socket.pipe(socket), port);
    expect(await answer).toBe("hello");
  });

  it("ends when the guest's connection is cut off", async () => {
    let isThere = false;
    const port = await serve((socket) => {
      isThere = true;
      socket.resume();
    });
    const { guest, relay } = await relayTo(port);
    await expect.poll(() => isThere, SOON).toBe(true);
    const exit = once(relay, "exit");
    guest.resetAndDestroy();
    await exit;
  });

  it("ends within a while, without a word of its own, when nobody listens or the server ignores the guest's end", async () => {
    const port = await serve((socket) => socket.resume());
    const [ignored, unheard] = [await relayTo(port), await relayTo(await freePort())];
    const exits = [once(ignored.relay, "exit"), once(unheard.relay, "exit")];
    ignored.guest.end("x");
    expect(await all(unheard.guest)).toBe("");
    await Promise.all(exits);
  });

  it("is one of 16 at most, and leaves its place to another when it ends, however that was", async () => {
    const port = await serve((socket) => socket.pipe(socket));
    const speak = async (): Promise<{ guest: Socket; relay: ChildProcess; answer: string }> => {
      const { guest, relay } = await relayTo(port);
      const answer = new Promise<string>((resolve) => {
        guest.once("data", (data: Buffer) => resolve(data.toString()));
        guest.once("close", () => resolve(""));
        guest.once("end", () => resolve(""));
      });
      guest.write("x");
      return { guest, relay, answer: await answer };
    };
    const relays = await Promise.all(Array.from({ length: 16 }, speak));
    expect(relays.map(({ answer }) => answer).join("")).toBe("x".repeat(16));
    expect((await speak()).answer).toBe("");
    const exit = once(relays[3]?.relay ?? new ChildProcess(), "exit");
    relays[3]?.relay.kill("SIGKILL");
    await exit;
    expect((await speak()).answer).toBe("x");
    expect((await speak()).answer).toBe("");
  });

  it("fits into a forward, which QEMU cuts after 1023 bytes", () => {
    const command = relayCommand({ host: "255.255.255.255", port: 65_535 });
    expect(`tcp:255.255.255.255:65535-cmd:${command}`.length).toBeLessThan(1024);
    expect(command).not.toContain(",");
  });
});
