import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { check, create, delete as remove, diff, read, update } from "../../provider/agentfs.js";
import { exportPaths } from "../../provider/exports/paths.js";
import { defaultStateDirectory, readHostId } from "../../provider/host/state-directory.js";
import { identify, untilExit } from "../../provider/host/process.js";
import type { Values } from "../../provider/plan/fields.js";
import { UNKNOWN } from "../../provider/spec/validate.js";
import { whyNoAgentFs } from "../lab/programs.js";
import { makeBase, newsOf as anyNewsOf, occupy, useExportBed } from "./exports/export-bed.js";

const bed = useExportBed();
const newsOf = (inputs: Values, name?: string) => anyNewsOf("AgentFs", bed, inputs, name);

const reasonsOf = async (inputs: Values, olds: Values = {}) =>
  (await check(olds, newsOf({ binary: process.execPath, ...inputs }))).failures.map(({ reason }) => reason);

describe("check of an AgentFs", () => {
  it("knows the port and the place of the database before anything is there", async () => {
    const baseDirectory = await makeBase(bed);
    const news = newsOf({ agentId: "one", baseDirectory, binary: process.execPath });
    const { inputs, failures } = await check({}, news);
    expect(failures).toEqual([]);
    expect(inputs).toMatchObject({
      databasePath: join(bed.folder, ".agentfs/one.db"),
      bind: "127.0.0.1",
      nfsServer: "127.0.0.1",
      nfsPath: "/",
      observed: "running",
    });
    const port = Number(inputs["nfsPort"]);
    expect(port).toBeGreaterThanOrEqual(20_000);
    expect(port).toBeLessThan(30_000);
    expect(inputs["nfsMountPort"]).toBe(port);
    expect((await check({}, news)).inputs["nfsPort"]).toBe(port);
    expect((await check({}, newsOf(news, "other"))).inputs["nfsPort"]).not.toBe(port);
    expect(existsSync(defaultStateDirectory())).toBe(false);
  });

  it("takes what is not known yet, and what is bound to the bridge", async () => {
    const baseDirectory = await makeBase(bed);
    const later = newsOf({ agentId: "one", baseDirectory: UNKNOWN, port: UNKNOWN, binary: process.execPath });
    expect(await check({}, later)).toMatchObject({ inputs: { nfsPort: UNKNOWN }, failures: [] });
    const bridged = { agentId: "one", baseDirectory, binary: process.execPath, bind: "bridge" };
    expect((await check({}, newsOf(bridged))).inputs["nfsServer"]).toBe("10.20.1.1");
    const network = { subnet: "10.99.0.0/24" };
    expect((await check({}, newsOf({ ...bridged, network }))).inputs["nfsServer"]).toBe("10.99.0.1");
  });

  it.each<[Values, RegExp]>([
    [{}, /^id: expected an id or a databasePath, got neither/],
    [{ agentId: "a", databasePath: "/x.db" }, /^id: expected an id or a databasePath, got both/],
    [{ agentId: "../a" }, /^id: expected letters, digits, hyphens and underscores/],
    [{ agentId: "a", port: 0 }, /^port: expected an integer from 1 to 65535, got 0/],
    [{ agentId: "a", bind: "everywhere" }, /^bind: expected an IPv4 address of this host, or "bridge"/],
    [{ agentId: "a", network: { subnet: "10.0.0.0/8" } }, /^network: expected bind: "bridge" beside it/],
    [{ agentId: "a", baseDirectory: "base" }, /^baseDirectory: expected an absolute path/],
    [{ agentId: "a", key: "ab".repeat(32) }, /^cipher: expected a value beside key/],
    [{ agentId: "a", secretInputs: ["agentId"] }, /^id: a secret cannot be used here/],
    [{ agentId: "a" }, /^baseDirectory: expected a folder, since there is no database/],
    [{ agentId: "a", baseDirectory: "/nonexistent/base" }, /^baseDirectory: .*\[file-unusable\]/],
    [{ agentId: "a", binary: "/nonexistent/agentfs" }, /^binary: .*\[host-unusable\]/],
  ])("refuses %j", async (inputs, message) => {
    expect(await reasonsOf(inputs)).toEqual([expect.stringMatching(message)]);
  });

  it("never shows a key, and says that this release cannot serve what it encrypts", async () => {
    const key = "0123456789abcdef".repeat(4);
    const program = join(bed.folder, "agentfs");
    await writeFile(program, "#!/bin/sh\necho '--bind --port'\n", { mode: 0o755 });
    const inputs = { agentId: "a", baseDirectory: await makeBase(bed), key, cipher: "aegis256" };
    const { failures } = await check({}, newsOf({ ...inputs, binary: program, secretInputs: ["key"] }));
    expect(failures).toEqual([
      { property: "", reason: expect.stringMatching(/^key: .*cannot serve an encrypted database/) },
    ]);
    expect(JSON.stringify(await check({}, newsOf({ ...inputs, key: `${key}zz` })))).not.toContain(key);
  });
});

const up = async (inputs: Values, name?: string) => {
  const checked = await check({}, newsOf(inputs, name));
  expect(checked.failures).toEqual([]);
  const { id, outs } = await create(checked.inputs);
  return { id, outs, inputs: checked.inputs, pid: Number(outs["pid"]) };
};
const kill = async (pid: number) => {
  const server = identify(pid);
  process.kill(pid, "SIGKILL");
  if (server !== undefined) await untilExit(server, 5);
};

const reason = whyNoAgentFs();

describe.skipIf(reason !== undefined)(
  `an AgentFs${reason === undefined ? "" : ` (skipped: ${reason})`}`,
  () => {
    it("makes the database, serves it, sees that its server has ended, and makes it anew on the same database", async () => {
      const inputs = { agentId: "one", baseDirectory: await makeBase(bed) };
      const first = await up(inputs);
      expect(first.outs).toMatchObject({
        state: "running",
        hostId: await readHostId(defaultStateDirectory()),
      });
      expect(await readdir(join(bed.folder, ".agentfs"))).toEqual(["one.db", "one.db-wal"]);
      const same = await check(first.inputs, newsOf(inputs));
      expect(same.inputs).toEqual(first.inputs);
      expect(await diff(first.id, first.outs, same.inputs)).toMatchObject({ changes: false, replaces: [] });

      await kill(first.pid);
      const lost = await check(first.inputs, newsOf(inputs));
      expect(lost.inputs["observed"]).toBe("stopped");
      expect((await read(first.id, first.outs)).props).toMatchObject({ state: "stopped" });
      expect(await diff(first.id, first.outs, lost.inputs)).toEqual({
        changes: true,
        replaces: ["observed"],
        deleteBeforeReplace: true,
      });
      await remove(first.id, first.outs);
      expect(await read(first.id, first.outs)).toEqual({});
      expect(existsSync(join(bed.folder, ".agentfs/one.db"))).toBe(true);

      const second = await up(inputs);
      expect(second.id).not.toBe(first.id);
      const kept = { ...second.inputs, deleteDatabase: true };
      expect(await diff(second.id, second.outs, kept)).toMatchObject({ changes: true, replaces: [] });
      const updated = await update(second.id, second.outs, kept);
      expect(updated.outs["pid"]).toBe(second.pid);
      await remove(second.id, updated.outs);
      expect(await readdir(join(bed.folder, ".agentfs"))).toEqual([]);
      await remove(second.id, updated.outs);
    });

    it("never has two servers on one database, whatever path leads there", async () => {
      const inputs = { agentId: "one", baseDirectory: await makeBase(bed) };
      const { pid } = await up(inputs);
      await symlink(bed.folder, join(bed.folder, "other"));
      const other = {
        ...inputs,
        agentId: undefined,
        databasePath: join(bed.folder, "other/.agentfs/one.db"),
      };
      const { inputs: same } = await check({}, newsOf(other, "other"));
      await expect(create(same)).rejects.toThrow(/is served by the export fs-[0-9a-f]{8}/);
      // Another state directory knows nothing of it: AgentFS' own lock holds.
      vi.stubEnv("XDG_STATE_HOME", join(bed.folder, "other-state"));
      const { inputs: elsewhere } = await check({}, newsOf(other, "other"));
      await expect(create(elsewhere)).rejects.toThrow(/locked by another process/);
      vi.stubEnv("XDG_STATE_HOME", join(bed.folder, "state"));
      expect(identify(pid)).toBeDefined();
    });

    it("names a port that another program has, and leaves nothing", async () => {
      const inputs = newsOf({ agentId: "one", baseDirectory: await makeBase(bed) });
      const { inputs: checked } = await check({}, inputs);
      const leave = await occupy(Number(checked["nfsPort"]));
      await expect(create(checked)).rejects.toThrow(/^port: port \d+\/tcp of 127.0.0.1 is in use/);
      await leave();
      expect(await readdir(join(defaultStateDirectory(), ".exports"))).toEqual([]);
    });

    it("refuses a database that is an overlay of another base, in AgentFS' own words one that is none, and leaves no server", async () => {
      const baseDirectory = await makeBase(bed);
      const { id, outs } = await up({ agentId: "one", baseDirectory });
      await remove(id, outs);
      await mkdir(join(bed.folder, "second"));
      const { inputs } = await check(
        {},
        newsOf({ agentId: "one", baseDirectory: join(bed.folder, "second") }),
      );
      await expect(create(inputs)).rejects.toThrow(
        /^baseDirectory: the database .* is an overlay of .*\/base/,
      );
      await writeFile(
        join(bed.folder, "none.db"),
        "no database at all, and long enough to be taken for one".repeat(99),
      );
      const none = await check({}, newsOf({ databasePath: join(bed.folder, "none.db"), baseDirectory }));
      await expect(create(none.inputs)).rejects.toThrow(/cannot be read as an AgentFS database/);
      expect(await readdir(join(defaultStateDirectory(), ".exports"))).toEqual([]);
    });

    it("keeps what another stack has, and what the state does not hold", async () => {
      const inputs = { agentId: "one", baseDirectory: await makeBase(bed) };
      const { id, outs, inputs: checked, pid } = await up(inputs);
      await diff(id, outs, checked); // the engine has shown that its state holds it
      await expect(create(checked)).rejects.toThrow(/this resource has an export .* already/);
      expect(identify(pid)).toBeDefined();
      const log = exportPaths(defaultStateDirectory(), id.split("/")[0] ?? "").log;
      expect(await readFile(log, "utf8")).toContain("AgentFS NFS Server");
      await expect(remove(id, { ...outs, hostId: "another" })).rejects.toThrow(/\[other-host\]/);
    });
  },
);
