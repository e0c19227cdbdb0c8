import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";

import { HttpClient, type HttpRequest, HttpStatusError } from "../../../provider/backends/http.js";

let folder: string;
let socketPath: string;
let server: Server | undefined;
let client: HttpClient | undefined;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "microvm-http-"));
  socketPath = join(folder, "api.sock");
});
afterEach(async () => {
  client?.close();
  server?.closeAllConnections();
  server?.close();
  [server, client] = [undefined, undefined];
  await rm(folder, { recursive: true, force: true });
});

/** A client of a server at a unix socket that answers so. */
async function clientOf(answer: RequestListener): Promise<HttpClient> {
  server = createServer(answer).listen(socketPath);
  await once(server, "listening");
  client = await HttpClient.open({ server: "a server", socketPath, origin: "http://localhost" });
  return client;
}

const ping: HttpRequest<{ version: string }> = {
  method: "GET",
  path: "/ping",
  answer: z.object({ version: z.string() }),
  timeoutSeconds: 5,
};

const nothing = { answer: z.undefined(), timeoutSeconds: 5 } as const;

describe("HttpClient", () => {
  it("sends JSON and reads it", async () => {
    const seen: unknown[] = [];
    const http = await clientOf((request, response) => {
      request
        .setEncoding("utf8")
        .on("data", (text: string) => seen.push(request.method, request.url, JSON.parse(text)));
      request.on("end", () => response.end('{"version":"1"}'));
    });
    expect(await http.send({ ...ping, method: "PUT", body: { a: 1 } })).toEqual({ version: "1" });
    expect(seen).toEqual(["PUT", "/ping", { a: 1 }]);
  });

  it("keeps one connection for many requests", async () => {
    const http = await clientOf((_request, response) => response.end('{"version":"1"}'));
    let connections = 0;
    server?.on("connection", () => connections++);
    for (let request = 0; request < 5; request++) await http.send(ping);
    expect(connections).toBe(1);
  });

  it("takes an answer without a body", async () => {
    const http = await clientOf((_request, response) => response.writeHead(204).end());
    expect(await http.send({ ...nothing, method: "PUT", path: "/boot" })).toBeUndefined();
  });

  it("tells of another status in the server's own words, and keeps them raw", async () => {
    const chain = '["Error from API","The VM could not boot","no kernel"]';
    const http = await clientOf((_request, response) => response.writeHead(500).end(chain));
    const error: unknown = await http.send(ping).catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      code: "vmm-failed",
      message: `a server at ${socketPath}: GET /ping was answered with Error from API: The VM could not boot: no kernel (status 500)`,
    });
    expect((error as Error).cause).toBeInstanceOf(HttpStatusError);
    expect((error as Error).cause).toMatchObject({ status: 500, text: chain });
  });

  it.each([
    ["no JSON", "<html>", /the answer to GET \/ping is no JSON: <html>/],
    ["something else", '{"version":7}', /is not understood: .*expected string.*: \{"version":7\}/],
    ["nothing", "", /is no JSON: nothing/],
  ])("shows an answer that is %s", async (_what, text, message) => {
    const http = await clientOf((_request, response) => response.end(text));
    await expect(http.send(ping)).rejects.toThrow(message);
  });

  it("gives up on a server that does not answer, or not to the end", async () => {
    const http = await clientOf((request, response) => {
      if (request.url === "/half") response.write('{"ver');
    });
    for (const path of ["/silent", "/half"]) {
      const error: unknown = await http
        .send({ ...ping, path, timeoutSeconds: 0.2 })
        .catch((reason: unknown) => reason);
      expect(error).toMatchObject({
        code: "vmm-failed",
        text: expect.stringContaining("no answer within 0.2 s"),
      });
    }
  });

  it("reads no endless answer", async () => {
    const http = await clientOf((_request, response) => response.end("x".repeat(5 * 1024 * 1024)));
    await expect(http.send(ping)).rejects.toMatchObject({ code: "vmm-failed" });
  });

  it("tells of a server that closes the connection instead", async () => {
    const http = await clientOf((request) => request.socket.destroy());
    await expect(http.send(ping)).rejects.toMatchObject({ code: "vmm-failed" });
  });

  it.each([
    ["nobody listens", false, "ENOENT"],
    ["its listener has died", true, "ECONNREFUSED"],
  ])("names the system's error where %s", async (_what, isLeft, code) => {
    if (isLeft) {
      const { spawnSync } = await import("node:child_process");
      const dying = `require("net").createServer().listen(${JSON.stringify(socketPath)},()=>process.kill(process.pid,"SIGKILL"))`;
      spawnSync(process.execPath, ["-e", dying]);
    }
    client = await HttpClient.open({ server: "a server", socketPath, origin: "http://localhost" });
    const error: unknown = await client.send(ping).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "vmm-failed", cause: { code } });
  });

  it("refuses what is still under way when it is closed", async () => {
    const http = await clientOf(() => undefined);
    const sent = http.send(ping);
    const failed = expect(sent).rejects.toMatchObject({ code: "vmm-failed" });
    http.close();
    await failed;
  });
});
