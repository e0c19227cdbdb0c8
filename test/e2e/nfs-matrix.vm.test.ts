/**
 * Guests whose roots real NFS servers serve, by each way to their mountd: a guest boots, writes, and what it wrote is found on the server's
 * side. In a network namespace, where port 111 is ours.
 *
 * The same through the engine: exports.e2e.test.ts (NfsExport, AgentFs); through the REST server: seed.vm.test.ts (one port; port 2049 and
 * port mapper).
 */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import * as agentFs from "../../provider/agentfs.js";
import { readChanges } from "../../provider/exports/changes.js";
import { check, create, delete as remove } from "../../provider/index.js";
import type { Values } from "../../provider/plan/fields.js";
import { fastestKernel, whyNoWorld } from "../faults/world.js";
import { makeGuestRoot } from "../lab/guest.js";
import { isInNamespace, runInNamespace, whyNoNamespace } from "../lab/namespace.js";
import { freePort, type NfsServer, startNfsServer } from "../lab/nfs.js";
import { onOnePort } from "../lab/one-port.js";
import { whyNoAgentFs } from "../lab/programs.js";

const title = "a guest's root";
const reason = whyNoWorld() ?? whyNoNamespace();
const noAgentFs = whyNoAgentFs();
/** Nothing loads the module of a machine that is not the test's own. */
const noNfsd = /\tnfsd$/m.test(readFileSync("/proc/filesystems", "utf8"))
  ? "untried: no machine of this project's has one"
  : "this kernel has none in /proc/filesystems";

if (reason !== undefined) {
  describe(title, () => it.skip(`skipped: ${reason}`, () => undefined));
} else if (!isInNamespace()) {
  it(`${title} on NFS servers of each kind, in a network namespace of their own`, () => {
    expect(runInNamespace(__filename)).toBe(0);
  });
} else {
  describe(title, () => {
    let folder: string;
    let ganesha: NfsServer;
    let onePort: number;
    let endOnePort: () => Promise<void>;

    beforeAll(async () => {
      // Where there is no address but the loopback's own, nfs-ganesha knows none, 127.0.0.1 included (see provider/exports/ganesha.ts).
      execFileSync("ip", ["-6", "address", "add", "fd00::1/128", "dev", "lo", "nodad"]);
      folder = await mkdtemp(join(tmpdir(), "microvm-matrix-"));
      vi.stubEnv("XDG_STATE_HOME", join(folder, "state"));
      vi.stubEnv("XDG_RUNTIME_DIR", folder);
      vi.spyOn(process.stdout, "write").mockImplementation(() => true);
      await makeGuestRoot(join(folder, "root"));
      ganesha = await startNfsServer({ exports: [{ path: join(folder, "root") }], portMapper: true });
      onePort = await freePort();
      endOnePort = await onOnePort({ address: "127.0.0.1", port: onePort }, ganesha);
    });
    afterAll(async () => {
      vi.restoreAllMocks();
      vi.unstubAllEnvs();
      await endOnePort();
      await ganesha.kill();
      await rm(folder, { recursive: true, force: true });
    });

    const ownerOf = (type: string, name: string) => ({
      organization: "organization",
      urn: `urn:pulumi:dev::matrix::microvm:index:${type}::${name}`,
      program: folder,
    });

    /** Boots a guest until it has written, tells how its kernel was sent to its root, and removes it. */
    async function boot(vmName: string, root: Values): Promise<string> {
      const news = { vmName, kernel: fastestKernel(), useNfsRoot: true, ...root, memoryMiB: 192 };
      const readiness = { console: "^guest: ready" };
      const { inputs, failures } = await check({}, { ...news, readiness, owner: ownerOf("MicroVm", vmName) });
      expect(failures).toEqual([]);
      const { id, outs } = await create(inputs);
      expect(outs).toMatchObject({ state: "running", rootEvidence: "proved" });
      await remove(id, outs);
      return String(outs["cmdline"]);
    }

    it.each([
      ["one port for NFS and MOUNT", "one", () => ({ nfsPort: onePort }), / nfsroot=.*,mountport=/],
      [
        "a port for each",
        "two",
        () => ({ nfsPort: ganesha.nfsPort, nfsMountPort: ganesha.mountPort }),
        / nfsroot=.*,mountport=/,
      ],
      [
        "the port of MOUNT by rpcbind",
        "mapped",
        () => ({ nfsPort: ganesha.nfsPort, nfsMountPort: "rpcbind" }),
        / nfsroot=(?!.*mountport)/,
      ],
    ])("from nfs-ganesha, %s: what it writes is in the folder", async (_, vmName, ports, words) => {
      const root = { nfsServer: "127.0.0.1", nfsPath: join(folder, "root"), ...ports() };
      expect(await boot(vmName, root)).toMatch(words);
      expect(await readFile(join(folder, "root/var/boots.txt"), "utf8")).toMatch(
        new RegExp(`^${vmName}: Linux .* on 10\\.0\\.2\\.2:.* \\(nfs\\)$`, "m"),
      );
    });

    // AgentFS serves NFS and MOUNT on one port, and does not register with rpcbind: there is no other way to its mountd.
    it.skipIf(noAgentFs !== undefined)(
      `from AgentFS${noAgentFs === undefined ? "" : ` (skipped: ${noAgentFs})`}: what it writes is in the database, and not in the base`,
      async () => {
        const baseDirectory = join(folder, "base");
        await makeGuestRoot(baseDirectory);
        const owner = ownerOf("AgentFs", "fs");
        const { inputs, failures } = await agentFs.check({}, { agentId: "matrix", baseDirectory, owner });
        expect(failures).toEqual([]);
        const { id, outs } = await agentFs.create(inputs);
        try {
          const { nfsServer, nfsPort, nfsPath, nfsMountPort } = outs;
          await boot("agent", { nfsServer, nfsPort, nfsPath, nfsMountPort });
          const { changes } = await readChanges(String(outs["databasePath"]));
          expect(changes).toContainEqual(
            expect.objectContaining({ path: "/var/boots.txt", change: "added", kind: "file" }),
          );
        } finally {
          await agentFs.delete(id, outs);
        }
        await expect(readFile(join(baseDirectory, "var/boots.txt"))).rejects.toThrow("ENOENT");
      },
    );

    it.skip(`from the kernel's nfsd (skipped: ${noNfsd})`, () => undefined);
  });
}
