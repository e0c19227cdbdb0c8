import { execFileSync } from "node:child_process";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { get } from "node:https";
import { connect, type Server } from "node:net";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { Content, route } from "../../../provider/server/route.js";
import { buildServer, defaultLimits } from "../../../provider/server/server.js";
import { isOnPath } from "../../lab/programs.js";
import { messageIn, ServerBed } from "./bed.js";

let bed: ServerBed;
beforeAll(async () => {
  bed = await ServerBed.open();
  await bed.configure({ nfs_enabled: true });
  await bed.start({ allowedHosts: ["vms.example"] });
});
afterAll(async () => await bed.close());

async function connectionsOf(server: Server): Promise<number> {
  return await new Promise((resolve, reject) => {
    server.getConnections((error, count) => (error === null ? resolve(count) : reject(error)));
  });
}

/** What comes back for bytes as they are. */
async function raw(url: string, text: string, finish = true): Promise<string> {
  const { port } = new URL(url);
  return await new Promise((resolve, reject) => {
    let received = "";
    const socket = connect(Number(port), "127.0.0.1");
    socket.setEncoding("utf8").on("data", (chunk: string) => (received += chunk));
    socket.on("close", () => resolve(received)).on("error", reject);
    socket.write(text);
    if (finish) socket.end();
  });
}

describe("who may ask", () => {
  it.each(["localhost:7000", "127.0.0.1", "[::1]:7000", "10.1.2.3:80", "vms.example", "VMS.example.:7000"])(
    "answers a caller that calls it %s",
    async (host) => {
      expect((await bed.call("GET", "/v1/vms", { headers: { host } })).status).toBe(200);
    },
  );

  it.each(["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "a b", "vms.example@evil"])(
    "refuses the Host %j, as a page that rebinds its name would send it",
    async (host) => {
      const answer = await bed.call("GET", "/v1/vms", { headers: { host } });
      expect(answer.status).toBe(403);
      expect(answer.text).not.toContain('vms":');
    },
  );

  it("refuses pages of other sites, also where a browser asks nobody before", async () => {
    const others = [
      { origin: "https://evil.example" },
      { origin: "null" },
      { origin: "http://127.0.0.1:1" },
      { "sec-fetch-site": "cross-site" },
      { "sec-fetch-site": "same-site" },
    ];
    for (const headers of others) {
      const answer = await bed.call("POST", "/v1/vms/x/snapshots", { headers });
      expect([headers, answer.status]).toEqual([headers, 403]);
    }
    const own = { origin: bed.url, host: new URL(bed.url).host, "sec-fetch-site": "same-origin" };
    expect((await bed.call("GET", "/v1/vms", { headers: own })).status).toBe(200);
  });

  it("allows nothing to a browser that asks for another site (CORS)", async () => {
    const headers = { origin: "https://evil.example", "access-control-request-method": "DELETE" };
    const answer = await bed.call("OPTIONS", "/v1/vms", { headers });
    expect(answer.status).toBe(403);
    expect(Object.keys(answer.headers).filter((name) => name.startsWith("access-control"))).toEqual([]);
    const plain = await bed.call("OPTIONS", "/v1/vms");
    expect(plain).toMatchObject({ status: 405, headers: { allow: "GET, POST, DELETE" } });
  });
});

describe("requests that mean harm", () => {
  it("takes JSON alone", async () => {
    const headers = { "content-type": "text/plain" };
    expect((await bed.call("POST", "/v1/vms", { text: "{}", headers })).status).toBe(415);
    expect((await bed.call("POST", "/v1/vms", { text: "{" })).status).toBe(400);
    expect((await bed.call("POST", "/v1/vms", { text: '{"__proto__":{"a":1}}' })).status).toBe(400);
    expect((await bed.call("POST", "/v1/vms")).status).toBe(400);
    expect((await bed.call("POST", "/v1/vms", { body: [1] })).status).toBe(400);
  });

  it("bounds the body, told and untold", async () => {
    const text = JSON.stringify({ entryPoint: "x".repeat(defaultLimits.bodyBytes) });
    expect((await bed.call("POST", "/v1/vms", { text })).status).toBe(413);
    const chunked = { "transfer-encoding": "chunked" };
    expect((await bed.call("POST", "/v1/vms", { text, headers: chunked })).status).toBe(413);
  });

  it("refuses what is no HTTP, or says its length twice", async () => {
    expect(await raw(bed.url, "hello\r\n\r\n")).toMatch(/^HTTP\/1\.1 400/);
    const smuggled =
      "POST /v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n" +
      "Transfer-Encoding: chunked\r\n\r\n{}DELETE /v1/vms HTTP/1.1\r\nHost: localhost\r\n\r\n";
    expect(await raw(bed.url, smuggled)).toMatch(/^HTTP\/1\.1 400/);
    expect(
      await raw(bed.url, `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${"x".repeat(20_000)}\r\n\r\n`),
    ).toMatch(/^HTTP\/1\.1 431/);
  });

  it.each([
    ["vmName", "../../etc"],
    ["vmName", "a/b"],
    ["vmName", 'a" init=/bin/sh'],
    ["vmName", "a\u0000b"],
    ["vmName", "-a"],
    ["vmName", ".snapshots"],
    ["kernel", "relative/path"],
    ["kernel", "/etc/passwd"],
    ["rootfs", "/dev/null/x"],
    ["initramfs", "/a\nb"],
    ["entryPoint", '/bin/x" root=/dev/sda'],
    ["entryPoint", "/bin/x init=/bin/sh"],
    ["nfsServer", "10.0.0.1:/,port=1"],
    ["nfsServer", "10.0.0.1 init=/bin/sh"],
    ["nfsPath", "/a b"],
    ["nfsPath", "/x,port=111"],
    ["nfsPath", "/../x"],
    ["nfsOptions", "ro,port=1"],
    ["nfsOptions", "ro init=/bin/sh"],
    ["snapshotId", "../../x"],
    ["snapshotId", "x".repeat(300)],
  ])("refuses %s %j with a reason, and makes nothing", async (name, value) => {
    const isDisk = name === "rootfs";
    const body = { vmName: "victim", useNfsRoot: !isDisk, nfsServer: "127.0.0.1", nfsPort: 9, [name]: value };
    const answer = await bed.call("POST", "/v1/vms", { body });
    expect([400, 404]).toContain(answer.status);
    expect(messageIn(answer)).toContain(name);
    expect((await bed.call("GET", "/v1/vms")).body).toEqual({ vms: [] });
  });

  it.each([
    [{ kernelArgs: ["nfsroot=10.0.0.1:/"] }, /nfsServer, nfsPath and nfsOptions decide it/],
    [{ kernelArgs: ["a b"] }, /kernelArgs/],
    [{ owner: { organization: "x" } }, /owner/i],
    [{ stateDirectory: "/etc" }, /stateDirectory/i],
    [{ backend: { type: "qemu", binary: "/bin/sh" } }, /backend/i],
    [{ portForwards: [] }, /portForwards/i],
    [{ configFile: "/etc/passwd" }, /configFile/i],
  ])("refuses %j", async (more, expected) => {
    const body = { vmName: "victim", useNfsRoot: true, nfsServer: "127.0.0.1", nfsPort: 9, ...more };
    const answer = await bed.call("POST", "/v1/vms", { body });
    expect(answer.status).toBe(400);
    expect(messageIn(answer)).toMatch(expected);
  });

  it.each(["..", "%2e%2e", "..%2f..%2fetc", "a%00b", ".snapshots", "%zz", "x".repeat(300)])(
    "knows no VM %s",
    async (name) => {
      for (const [method, more] of [
        ["GET", ""],
        ["DELETE", ""],
        ["PATCH", ""],
        ["POST", "/snapshots"],
      ] as const) {
        const body = method === "PATCH" ? { status: "stopped" } : undefined;
        const { status } = await bed.call(method, `/v1/vms/${name}${more}`, { body });
        expect([name, method, [400, 404, 405, 414].includes(status)]).toEqual([name, method, true]);
      }
    },
  );
});

describe("a server with a token", () => {
  const token = "0123456789abcdef0123456789abcdef";

  it("lets nobody in without it, and tells nothing", async () => {
    await bed.stop();
    await writeFile(join(bed.folder, "token"), `${token}\n`, { mode: 0o600 });
    await bed.configure({ token_file: "./token" });
    await bed.start();
    for (const path of ["/v1/vms", "/v1/health", "/metrics", "/v1/vms/x"]) {
      for (const authorization of [
        undefined,
        "Bearer wrong",
        `Basic ${token}`,
        `Bearer ${token}x`,
        "Bearer",
      ]) {
        const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
        const answer = await bed.call("GET", path, { headers });
        expect([path, authorization, answer.status]).toEqual([path, authorization, 401]);
        expect(answer.headers["www-authenticate"]).toBe("Bearer");
      }
    }
    const headers = { authorization: `Bearer ${token}` };
    expect((await bed.call("GET", "/v1/vms", { headers })).status).toBe(200);
    expect((await bed.call("GET", "/metrics", { headers })).text).toContain("microvm_vms{");
    expect(bed.log.join("")).not.toContain(token);
  });

  it("does not take one that others can read, or that is short", async () => {
    await bed.stop();
    await writeFile(join(bed.folder, "open"), token, { mode: 0o644 });
    await bed.configure({ token_file: "./open" });
    await expect(bed.start()).rejects.toThrow(/chmod 600/);
    await writeFile(join(bed.folder, "short"), "abc", { mode: 0o600 });
    await bed.configure({ token_file: "./short" });
    await expect(bed.start()).rejects.toThrow(/at least 16/);
    await bed.configure({ token_file: "./none" });
    await expect(bed.start()).rejects.toThrow(/token_file: expected a readable file/);
  });
});

describe("where it listens", () => {
  it("listens to the network with a token or --insecure alone", async () => {
    await bed.stop();
    await bed.configure({ host: "0.0.0.0" });
    await expect(bed.start()).rejects.toThrow(/would listen at 0\.0\.0\.0, where others on the network/);
    await bed.start({ host: "127.0.0.1" });
    await bed.stop();
  });

  it("says that the port is taken", async () => {
    await bed.configure();
    await bed.start();
    const port = Number(new URL(bed.url).port);
    const other = await ServerBed.open();
    await other.configure();
    await expect(other.start({ port })).rejects.toMatchObject({ code: "port-taken" });
    await other.close();
  });

  it("leaves a state directory to the server that has it", async () => {
    const other = await ServerBed.open();
    await other.configure({ state_dir: bed.stateDirectory });
    await expect(other.start()).rejects.toThrow(/another microvm-restserver serves the VMs in/);
    await bed.stop();
    await other.start();
    await other.close();
  });

  it("does not use a state directory that others can write", async () => {
    await bed.stop();
    const stateDirectory = join(bed.folder, "open-state");
    await mkdir(stateDirectory);
    await chmod(stateDirectory, 0o777);
    await expect(bed.start({ stateDirectory })).rejects.toMatchObject({ code: "state-directory" });
  });
});

describe("a server whose hypervisor is missing", () => {
  it("says that it is not healthy, and why", async () => {
    await bed.configure({ hypervisor: "cloud-hypervisor", chv_bin: "./nothing" });
    await bed.start();
    const answer = await bed.call("GET", "/v1/health");
    expect(answer.status).toBe(503);
    expect(answer.body).toMatchObject({ error: { code: "host-unusable" } });
    expect((await bed.call("GET", "/v1/vms")).status).toBe(200);
    await bed.stop();
  });
});

const noOpenssl = isOnPath("openssl") ? "" : " (skipped: openssl is not installed)";

describe.skipIf(noOpenssl !== "")(`TLS${noOpenssl}`, () => {
  it("serves with the certificate that config.yaml names", async () => {
    const [cert, key] = [join(bed.folder, "cert.pem"), join(bed.folder, "key.pem")];
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    execFileSync(
      "openssl",
      ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, ...subject],
      {
        stdio: "ignore",
      },
    );
    await bed.configure({ tls_cert: cert, tls_key: key });
    await bed.start();
    expect(bed.url).toMatch(/^https:/);
    const ca = await readFile(cert);
    const status = await new Promise((resolve, reject) => {
      get(`${bed.url}/v1/health`, { ca, agent: false }, (response) =>
        resolve(response.resume().statusCode),
      ).on("error", reject);
    });
    expect(status).toBe(200);
    await expect(bed.call("GET", "/v1/health")).rejects.toThrow();
    await bed.stop();
    await bed.configure({ tls_cert: cert, tls_key: cert });
    await expect(bed.start()).rejects.toThrow(/^tls_cert, tls_key: expected a certificate at .*cert\.pem/);
  });
});

describe("the log", () => {
  it("has one line for what was asked for or refused, without its query, its body, or plain looks", async () => {
    await bed.configure();
    await bed.start();
    bed.log.length = 0;
    await bed.call("GET", "/v1/vms");
    await bed.call("GET", "/v1/vms/nobody/files?paths=/secret-path");
    await bed.call("POST", "/v1/vms/nobody/files", {
      body: { files: [{ path: "/a", content: "secret-content" }] },
    });
    await bed.call("POST", "/v1/vms/nobody/cmd", { body: { cmd: "secret-command" } });
    await bed.stop();
    const lines = bed.log.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines.filter(({ msg }) => msg === "answered")).toEqual([
      expect.objectContaining({
        method: "GET",
        path: "/v1/vms/nobody/files",
        status: 404,
        caller: "127.0.0.1",
      }),
      expect.objectContaining({ method: "POST", path: "/v1/vms/nobody/files", status: 404 }),
      expect.objectContaining({ method: "POST", path: "/v1/vms/nobody/cmd", status: 404 }),
    ]);
    expect(bed.log.join("")).not.toContain("secret");
  });
});

describe("slow callers", () => {
  it("does not wait for headers, or a body, for long", async () => {
    const limits = { ...defaultLimits, headersMilliseconds: 200, requestMilliseconds: 400 };
    const app = buildServer({ served: {} as never, routes: [], access: { hostNames: [] }, limits });
    const url = await app.listen({ host: "127.0.0.1", port: 0 });
    expect(await raw(url, "GET / HTTP/1.1\r\nHost: local", false)).toMatch(/^HTTP\/1\.1 408/);
    const begun =
      "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    expect(await raw(url, begun, false)).toMatch(/^HTTP\/1\.1 40[48]/);
    await app.close();
  });

  it("does not keep for long what nobody reads, and stops all the same", async () => {
    // More than the system's own buffers take.
    const large = Buffer.alloc(64 * 1024 * 1024, "x");
    const answer = async (): Promise<Content> => new Content("text/plain", large);
    const routes = [route({ method: "GET", path: "/large", summary: "Much", answer })];
    const limits = { ...defaultLimits, idleMilliseconds: 300 };
    const app = buildServer({ served: {} as never, routes, access: { hostNames: [] }, limits });
    const url = new URL(await app.listen({ host: "127.0.0.1", port: 0 }));
    const socket = connect(Number(url.port), "127.0.0.1").pause();
    socket.write("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n");
    socket.on("error", () => undefined);
    await expect.poll(async () => await connectionsOf(app.server)).toBe(1);
    await expect.poll(async () => await connectionsOf(app.server), { timeout: 10_000 }).toBe(0);
    await app.close();
    socket.destroy();
  });
});
