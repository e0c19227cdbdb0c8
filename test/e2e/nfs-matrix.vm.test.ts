/**
 * Guests whose roots real NFS servers serve, by each way to their mountd: a guest boots, writes, and what it wrote is found on the server's
 * side. In a network namespace, where port 111 is ours.
 *
 * The same through the engine: exports.e2e.test.ts (NfsExport, AgentFs); through the REST server: seed.vm.test.ts (one port; port 2049 and
 * port mapper).
 */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import * as agentFs from "../../provider/agentfs.js";
import { readChanges } from "../../provider/exports/changes.js";
import { check, create, delete as remove, read } from "../../provider/index.js";
import type { Values } from "../../provider/plan/fields.js";
import { forgetProbes, getAttributes, probeNfs } from "../../provider/preflight/nfs/index.js";
import { fastestKernel, whyNoWorld } from "../faults/world.js";
import { makeGuestRoot } from "../lab/guest.js";
import { EXPORT_PATH, type KernelNfsd, startKernelNfsd, whyNoKernelNfsd } from "../lab/kernel-nfsd.js";
import { isInNamespace, runInNamespace, whyNoNamespace } from "../lab/namespace.js";
import { freePort, type NfsServer, startNfsServer } from "../lab/nfs.js";
import { onOnePort } from "../lab/one-port.js";
import { whyNoAgentFs } from "../lab/programs.js";

const title = "a guest's root";
const reason = whyNoWorld() ?? whyNoNamespace();
const noAgentFs = whyNoAgentFs();
const noKernelNfsd = whyNoKernelNfsd();

/** Ports of a server. */
interface Ports {
  readonly nfsPort: number;
  readonly mountPort: number;
  /** Where both services are. */
  readonly onePort: number;
}

/** The ways to a server's mountd: the name of the guest that goes it, its inputs, and what its kernel is told. */
const ways: readonly (readonly [string, string, (ports: Ports) => Values, RegExp])[] = [
  ["one port for NFS and MOUNT", "one", ({ onePort }) => ({ nfsPort: onePort }), / nfsroot=.*,mountport=/],
  [
    "a port for each",
    "two",
    ({ nfsPort, mountPort }) => ({ nfsPort, nfsMountPort: mountPort }),
    / nfsroot=.*,mountport=/,
  ],
  [
    "the port of MOUNT by rpcbind",
    "mapped",
    ({ nfsPort }) => ({ nfsPort, nfsMountPort: "rpcbind" }),
    / nfsroot=(?!.*mountport)/,
  ],
];

/** What a guest of this name writes. */
const written = (vmName: string): RegExp =>
  new RegExp(`^${vmName}: Linux .* on 10\\.0\\.2\\.2:.* \\(nfs\\)$`, "m");

if (reason !== undefined) {
  describe(title, () => it.skip(`skipped: ${reason}`, () => undefined));
} else if (!isInNamespace()) {
  it(`${title} on NFS servers of each kind, in a network namespace of their own`, () => {
    expect(runInNamespace(__filename)).toBe(0);
  });
} else {
  describe(title, () => {
    let folder: string;

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "microvm-matrix-"));
      vi.stubEnv("XDG_STATE_HOME", join(folder, "state"));
      vi.stubEnv("XDG_RUNTIME_DIR", folder);
      vi.spyOn(process.stdout, "write").mockImplementation(() => true);
      await makeGuestRoot(join(folder, "root"));
    });
    afterAll(async () => {
      vi.restoreAllMocks();
      vi.unstubAllEnvs();
      await rm(folder, { recursive: true, force: true });
    });

    const ownerOf = (type: string, name: string) => ({
      organization: "organization",
      urn: `urn:pulumi:dev::matrix::microvm:index:${type}::${name}`,
      program: folder,
    });

    /** Boots a guest until it has written, tells how its kernel was sent to its root, and removes it. */
    async function boot(
      vmName: string,
      root: Values,
      meanwhile: (id: string, outs: Values) => Promise<void> = async () => undefined,
    ): Promise<string> {
      const news = { vmName, kernel: fastestKernel(), useNfsRoot: true, ...root, memoryMiB: 192 };
      const readiness = { console: "^guest: ready" };
      const { inputs, failures } = await check({}, { ...news, readiness, owner: ownerOf("MicroVm", vmName) });
      expect(failures).toEqual([]);
      const { id, outs } = await create(inputs);
      expect(outs).toMatchObject({ state: "running", rootEvidence: "proved" });
      await meanwhile(id, outs);
      await remove(id, outs);
      return String(outs["cmdline"]);
    }

    describe("from nfs-ganesha", () => {
      let server: NfsServer;
      let onePort: number;
      let endOnePort: (() => Promise<void>) | undefined;

      beforeAll(async () => {
        server = await startNfsServer({ exports: [{ path: join(folder, "root") }], portMapper: true });
        onePort = await freePort();
        endOnePort = await onOnePort({ address: "127.0.0.1", port: onePort }, server);
      });
      afterAll(async () => {
        await endOnePort?.();
        await server?.kill();
      });

      it.each(ways)("%s: what it writes is in the folder", async (_, vmName, inputsFor, words) => {
        const { nfsPort, mountPort } = server;
        const root = { nfsServer: "127.0.0.1", nfsPath: join(folder, "root") };
        expect(await boot(vmName, { ...root, ...inputsFor({ nfsPort, mountPort, onePort }) })).toMatch(words);
        expect(await readFile(join(folder, "root/var/boots.txt"), "utf8")).toMatch(written(vmName));
      });
    });

    const nfsdTitle = `from the kernel's nfsd${noKernelNfsd === undefined ? "" : ` (skipped: ${noKernelNfsd})`}`;
    describe.skipIf(noKernelNfsd !== undefined)(nfsdTitle, () => {
      const root = { nfsServer: "127.0.0.1", nfsPath: EXPORT_PATH };
      let server: KernelNfsd;
      let onePort: number;
      let endOnePort: (() => Promise<void>) | undefined;

      beforeAll(async () => {
        await makeGuestRoot(join(folder, "served"));
        server = await startKernelNfsd(join(folder, "served"));
        onePort = await freePort();
        endOnePort = await onOnePort({ address: "127.0.0.1", port: onePort }, server);
      });
      afterAll(async () => {
        await endOnePort?.();
        await server?.kill();
      });

      it.each(ways)("%s: what it writes is on the server", async (_, vmName, inputsFor, words) => {
        const { nfsPort, mountPort } = server;
        expect(await boot(vmName, { ...root, ...inputsFor({ nfsPort, mountPort, onePort }) })).toMatch(words);
        expect(await server.run(`cat ${EXPORT_PATH}/var/boots.txt`)).toMatch(written(vmName));
      });

      it("started anew under a guest: its root is not stale, and it writes on", async () => {
        const { nfsPort, mountPort } = server;
        const offs = `cat ${EXPORT_PATH}/var/power-offs.txt`;
        let before = "";
        await boot("again", { ...root, nfsPort, nfsMountPort: mountPort }, async (id, outs) => {
          before = await server.run(offs);
          await server.run("rpc.nfsd 0 && start");
          expect((await read(id, outs)).props).toMatchObject({ state: "running", rootEvidence: "proved" });
        });
        expect(await server.run(offs)).toBe(`${before}off\n`);
      });

      it("its root's handle outlives a restart, and is stale when the server exports another folder instead", async () => {
        const { nfsPort, mountPort } = server;
        const place = { server: "127.0.0.1", port: nfsPort };
        const probed = await probeNfs({ ...place, mountPort, path: EXPORT_PATH });
        if (probed.kind !== "ok") throw new Error(probed.kind);
        const state = async () => (await getAttributes(place, probed.rootFileHandle)).kind;
        expect(await state()).toBe("ok");
        await server.run("rpc.nfsd 0");
        expect(await state()).toBe("unreachable");
        await server.run("start");
        expect(await state()).toBe("ok");
        // A client to whom nothing is exported is turned away before its handle is looked at.
        await server.run("exportfs -ua");
        expect(await getAttributes(place, probed.rootFileHandle)).toMatchObject({
          kind: "unreachable",
          finding: { kind: "rpc-denied" },
        });
        await server.run(`exportfs -i -o ro,no_subtree_check,insecure 10.0.2.0/24:${EXPORT_PATH}/var`);
        expect(await state()).toBe("stale");
        await server.run("exportfs -r");
        expect(await state()).toBe("ok");
      });

      it("for ports below 1024 alone: the preview names what to write into /etc/exports", async () => {
        const { nfsPort, mountPort } = server;
        const secure = `exportfs -i -o rw,no_root_squash,no_subtree_check,secure 10.0.2.0/24:${EXPORT_PATH}`;
        await server.run(secure);
        forgetProbes();
        const news = { vmName: "high", kernel: fastestKernel(), useNfsRoot: true, ...root };
        const ports = { nfsPort, nfsMountPort: mountPort };
        const { failures } = await check({}, { ...news, ...ports, owner: ownerOf("MicroVm", "high") });
        expect(failures.map(({ reason: words }) => words).join("\n")).toContain("`insecure` in /etc/exports");
        await server.run("exportfs -r");
      });

      it("and its disk holds all of it when the server has gone off", async () => {
        await server.powerOff();
        const boots = await server.readServed("/var/boots.txt");
        for (const [, vmName] of ways) expect(boots).toMatch(written(vmName));
      });
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
  });
}
