import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { arrakis } from "../../../../provider/backends/arrakis/arrakis.js";
import type { ArrakisBackend } from "../../../../provider/backends/backend.js";
import { isOnPath } from "../../../lab/programs.js";
import { StandIn } from "./stand-in.js";

const reason = isOnPath("openssl") ? undefined : "openssl is not installed";
const reference = { vmName: "web", instance: "0123456789abcdef", stateDirectory: "/nowhere" };

let folder: string;
let server: StandIn | undefined;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "microvm-access-"));
});
afterEach(async () => {
  await server?.close();
  await rm(folder, { recursive: true, force: true });
});

const observe = async (options: Omit<ArrakisBackend, "type">) =>
  await arrakis({ type: "arrakis", ...options }).observe(reference);

describe("a server at a unix socket", () => {
  it("is reached by its path", async () => {
    server = await StandIn.open({ socketPath: join(folder, "api.sock"), token: "t0ken" });
    expect(server.url).toBe(`unix://${folder}/api.sock`);
    expect(await observe({ url: server.url, token: "t0ken" })).toEqual({ state: "gone" });
  });
});

describe.skipIf(reason !== undefined)(
  `a server with a certificate of a private CA${reason === undefined ? "" : ` (skipped: ${reason})`}`,
  () => {
    it("is trusted with that CA, and not without it or with another", async () => {
      const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
      makeCertificate(key, cert);
      server = await StandIn.open({
        tls: { key: await readFile(key, "utf8"), cert: await readFile(cert, "utf8") },
      });
      const { url } = server;
      expect(await observe({ url, caFile: cert })).toEqual({ state: "gone" });
      await expect(observe({ url })).rejects.toMatchObject({
        code: "server-failed",
        text: expect.stringContaining("self-signed certificate") as unknown,
      });
      const other = join(folder, "other.pem");
      makeCertificate(join(folder, "other.key"), other);
      await expect(observe({ url, caFile: other })).rejects.toMatchObject({ code: "server-failed" });
    });

    it("is not reached with a file of certificates that is not there, until it is", async () => {
      const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
      makeCertificate(key, cert);
      const pem = await readFile(cert, "utf8");
      server = await StandIn.open({ tls: { key: await readFile(key, "utf8"), cert: pem } });
      const { url } = server;
      const caFile = join(folder, "later.pem");
      await expect(observe({ url, caFile })).rejects.toMatchObject({
        code: "file-unusable",
        input: "backend.caFile",
      });
      await writeFile(caFile, pem);
      expect(await observe({ url, caFile })).toEqual({ state: "gone" });
    });
  },
);

function makeCertificate(key: string, cert: string): void {
  const options =
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost";
  const names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert];
  execFileSync("openssl", [...options.split(" "), ...names], { stdio: "ignore" });
}
