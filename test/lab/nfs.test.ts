import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { whyNoNamespace } from "./namespace.js";
import { startNfsServer, whyNoNfsServer } from "./nfs.js";

const reason = whyNoNfsServer();
const noNamespace = whyNoNamespace();

/** Starts a server of a folder, and shows what listens while it runs. */
const LISTENING = (folder: string) => `
  const { startNfsServer } = require(${JSON.stringify(join(__dirname, "nfs.ts"))});
  startNfsServer({ exports: [{ path: ${JSON.stringify(folder)} }] }).then(async (server) => {
    process.stdout.write(require("node:child_process").execFileSync("ss", ["-Hltn"]));
    await server.stop();
  });`;

describe.skipIf(reason !== undefined)(
  `the lab's NFS server${reason === undefined ? "" : ` (${reason})`}`,
  () => {
    let folder = "";
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "lab-nfs-test-"));
    });
    afterAll(() => rm(folder, { recursive: true, force: true }));

    it("runs several at once, each on ports of its own, and comes back on the same ports", async () => {
      const [first, second] = await Promise.all([
        startNfsServer({ exports: [{ path: folder }] }),
        startNfsServer({ exports: [{ path: folder }] }),
      ]);
      try {
        const ports = [first.nfsPort, first.mountPort, second.nfsPort, second.mountPort];
        expect(new Set(ports).size).toBe(4);
        await first.kill();
        const again = await startNfsServer({
          exports: [{ path: folder }],
          nfsPort: first.nfsPort,
          mountPort: first.mountPort,
        });
        expect(await again.log()).toContain("NFS SERVER INITIALIZED");
        await again.stop();
      } finally {
        await Promise.all([first.stop(), second.stop()]);
      }
    }, 60_000);

    it("says why it does not come up", async () => {
      const server = await startNfsServer({ exports: [{ path: folder }] });
      try {
        await expect(
          startNfsServer({
            exports: [{ path: folder }],
            nfsPort: server.nfsPort,
            mountPort: server.mountPort,
          }),
        ).rejects.toThrow(/Cannot bind/);
      } finally {
        await server.stop();
      }
    }, 60_000);

    it.skipIf(noNamespace !== undefined)(
      `listens at its address alone where a network has no address but the loopback's${noNamespace === undefined ? "" : ` (${noNamespace})`}`,
      async () => {
        const words = ["--net", "sh", "-ec", 'ip link set lo up; exec "$@"', "sh"];
        const node = [process.execPath, "--import", "tsx", "-e", LISTENING(folder)];
        const { stdout } = await promisify(execFile)("unshare", [...words, ...node]);
        const addresses = [...stdout.matchAll(/^LISTEN +\d+ +\d+ +(\S+):\d+ /gm)].map(([, found]) => found);
        expect(addresses).toEqual(["[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]"]);
      },
      60_000,
    );
  },
);
