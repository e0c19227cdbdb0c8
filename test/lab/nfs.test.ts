import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startNfsServer, whyNoNfsServer } from "./nfs.js";

const reason = whyNoNfsServer();

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
  },
);
