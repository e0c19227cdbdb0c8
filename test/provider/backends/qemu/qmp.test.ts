import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { QmpClient, type QmpEvent } from "../../../../provider/backends/qemu/qmp.js";
import { isOnPath } from "../../../lab/programs.js";

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "microvm-qmp-"));
  path = join(folder, "qmp.sock");
});
afterEach(async () => await rm(folder, { recursive: true, force: true }));

const GREETING =
  '{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7},"package":""},"capabilities":["oob"]}}';

/** A peer that speaks as the test says. */
async function withPeer(speak: (socket: Socket, line: string) => void, greeting = GREETING): Promise<Server> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined); // the client may be gone
    socket.write(`${greeting}\r\n`);
    let text = "";
    socket.setEncoding("utf8").on("data", (chunk: string) => {
      const lines = (text += chunk).split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) speak(socket, line);
    });
  });
  server.listen(path);
  await once(server, "listening");
  return server;
}

/** Answers every command with an empty result, but for those that the test answers. */
const answering =
  (answers: Readonly<Record<string, (id: number) => string>> = {}) =>
  (socket: Socket, line: string): void => {
    const { execute, id } = JSON.parse(line) as { execute: string; id: number };
    socket.write(`${(answers[execute] ?? (() => `{"return":{},"id":${id}}`))(id)}\n`);
  };

const deviceMissing = (id: number): string =>
  `{"id":${id},"error":{"class":"GenericError","desc":"Cannot find device"}}`;

describe("QmpClient and a peer", () => {
  it("takes answers in any order, and events between them", async () => {
    const events: QmpEvent[] = [];
    let held: number | undefined;
    const server = await withPeer((socket, line) => {
      const { execute, id } = JSON.parse(line) as { execute: string; id: number };
      if (execute === "stop") held = id;
      else socket.write(`{"return":{},"id":${id}}\n`);
      if (execute !== "cont") return;
      socket.write('{"timestamp":{"seconds":1,"microseconds":2},"event":"RESUME"}\n');
      socket.write(`{"return":{"late":true},"id":${held}}\n`);
    });
    const client = await QmpClient.connect(path, { onEvent: (event) => events.push(event) });
    await Promise.all([client.stop(), client.cont()]);
    expect(events).toEqual([{ event: "RESUME", data: undefined }]);
    client.close();
    server.close();
  });

  it("gives an error in QEMU's own words", async () => {
    const server = await withPeer(answering({ block_resize: deviceMissing }));
    const client = await QmpClient.connect(path);
    await expect(client.blockResize("disk9", 1)).rejects.toMatchObject({
      code: "vmm-failed",
      message: expect.stringContaining("Cannot find device (GenericError)") as string,
    });
    await client.cont(); // and goes on
    client.close();
    server.close();
  });

  it("waits no longer than it was told to", async () => {
    const server = await withPeer((socket, line) => {
      if (line.includes("qmp_capabilities")) answering()(socket, line);
    });
    const client = await QmpClient.connect(path, { timeoutSeconds: 0.1 });
    await expect(client.status()).rejects.toThrow(/an answer to query-status did not come within 0\.1 s/);
    client.close();
    server.close();
  });

  it("waits no longer for a greeting", async () => {
    const server = await withPeer(() => undefined, "");
    await expect(QmpClient.connect(path, { timeoutSeconds: 0.1 })).rejects.toThrow(
      /its greeting did not come/,
    );
    server.close();
  });

  it.each([
    ["what is no JSON", "hello"],
    ["JSON that is no QMP", '{"foo":1}'],
    ["a list", "[1,2]"],
  ])("refuses %s", async (_what, greeting) => {
    const server = await withPeer(() => undefined, greeting);
    await expect(QmpClient.connect(path)).rejects.toThrow(/what it sent is no QMP/);
    server.close();
  });

  it("refuses a line without an end", async () => {
    const server = await withPeer((socket) => socket.write("x".repeat(5 * 1024 * 1024)));
    await expect(QmpClient.connect(path)).rejects.toThrow(/a line without an end/);
    server.close();
  });

  it("refuses an answer of another shape", async () => {
    const server = await withPeer(
      answering({ "query-status": (id) => `{"return":{"status":7},"id":${id}}` }),
    );
    const client = await QmpClient.connect(path);
    await expect(client.status()).rejects.toThrow(/its answer to query-status is not understood/);
    client.close();
    server.close();
  });

  it("tells whoever waits that the connection has ended", async () => {
    const server = await withPeer((socket, line) => {
      if (line.includes("qmp_capabilities")) answering()(socket, line);
      else socket.destroy();
    });
    const client = await QmpClient.connect(path);
    await expect(client.status()).rejects.toThrow(/closed its control socket/);
    await expect(client.status()).rejects.toThrow(/closed its control socket/);
    server.close();
  });

  it("takes the end of the connection for an answer to quit", async () => {
    const server = await withPeer((socket, line) => {
      if (line.includes("qmp_capabilities")) answering()(socket, line);
      else socket.destroy();
    });
    const client = await QmpClient.connect(path);
    await client.quit();
    server.close();
  });

  it("says so when nobody listens", async () => {
    await expect(QmpClient.connect(path)).rejects.toMatchObject({
      code: "vmm-failed",
      cause: { code: "ENOENT" },
    });
  });
});

const noQemu = isOnPath("qemu-system-x86_64") ? "" : " (skipped: qemu-system-x86_64 is not installed)";

describe.skipIf(noQemu !== "")(`QmpClient and a real QEMU${noQemu}`, () => {
  it("controls a machine without a guest", async () => {
    const args = [
      "-machine",
      "none",
      "-nodefaults",
      "-display",
      "none",
      "-S",
      "-qmp",
      `unix:${path},server=on,wait=off`,
    ];
    const child = spawn("qemu-system-x86_64", args, { stdio: "ignore" });
    const ended = once(child, "exit");
    try {
      // QEMU serves one client at a time: the first that gets through is the one.
      let client: QmpClient | undefined;
      const connect = async (): Promise<QmpClient | undefined> =>
        (client ??= await QmpClient.connect(path).catch(() => undefined));
      await expect.poll(connect, { timeout: 10_000 }).toBeDefined();
      if (client === undefined) throw new Error("no connection");
      expect(await client.status()).toBe("prelaunch");
      await client.cont();
      expect(await client.status()).toBe("running");
      await client.stop();
      expect(await client.status()).toBe("paused");
      expect(await client.humanMonitorCommand("info version")).toMatch(/^\d+\.\d+/);
      await expect(client.execute("no-such-command")).rejects.toThrow(/no-such-command has not been found/);
      await client.quit();
      await ended;
    } finally {
      child.kill("SIGKILL");
    }
  });
});
