import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ganeshaConfiguration } from "../../provider/exports/ganesha.js";
import { defaultStateDirectory } from "../../provider/host/state-directory.js";
import { identify, untilExit } from "../../provider/host/process.js";
import { check, create, delete as remove, diff, read, update } from "../../provider/nfs.js";
import type { Values } from "../../provider/plan/fields.js";
import { handleState, probeNfs } from "../../provider/preflight/nfs/index.js";
import { UNKNOWN } from "../../provider/spec/validate.js";
import { makeGuestRoot } from "../lab/guest.js";
import { whyNoNfsServer } from "../lab/nfs.js";
import { makeBase, newsOf as anyNewsOf, occupy, useExportBed } from "./exports/export-bed.js";

const bed = useExportBed();
const newsOf = (inputs: Values, name?: string) => anyNewsOf("NfsExport", bed, inputs, name);
const reason = whyNoNfsServer();
const suffix = reason === undefined ? "" : ` (skipped: ${reason})`;

describe("the configuration of nfs-ganesha", () => {
  it("lets in its clients alone, and is the same for every start", () => {
    const text = ganeshaConfiguration(
      {
        type: "ganesha",
        directory: "/srv/root",
        readOnly: true,
        squash: "root",
        allowedClients: ["127.0.0.1", "10.20.0.0/16"],
      },
      { address: "10.20.1.1", port: 20_000, mountPort: 20_001, path: "/srv/root" },
    );
    expect(text).toMatch(/^ {2}Access_Type = None;$/m);
    expect(text).toMatch(
      /^ {4}Clients = 127.0.0.1, 10.20.0.0\/16;\n {4}Access_Type = RO;\n {4}Squash = Root_Squash;\n {4}Protocols = 3;$/m,
    );
    expect(text).toContain("Bind_addr = 10.20.1.1;\n  NFS_Port = 20000;\n  MNT_Port = 20001;");
    expect(text).toContain("Export_Id = 1;");
  });
});

describe.skipIf(reason !== undefined)(`check of an NfsExport${suffix}`, () => {
  it("knows ports and clients before anything is there", async () => {
    const directory = await makeBase(bed);
    const { inputs, failures } = await check({}, newsOf({ directory }));
    expect(failures).toEqual([]);
    const port = Number(inputs["nfsPort"]);
    expect(inputs).toMatchObject({
      nfsServer: "127.0.0.1",
      nfsMountPort: port + 1,
      nfsPath: directory,
      readOnly: false,
      squash: "none",
      allowedClients: ["127.0.0.1"],
    });
    const bridged = await check({}, newsOf({ directory, bind: "bridge", port: 2500, mountPort: UNKNOWN }));
    expect(bridged).toMatchObject({
      inputs: {
        nfsServer: "10.20.1.1",
        nfsPort: 2500,
        nfsMountPort: UNKNOWN,
        allowedClients: ["127.0.0.1", "10.20.0.0/16"],
      },
      failures: [],
    });
  });

  it.each<[Values, RegExp]>([
    [{}, /^directory: expected an absolute path, got nothing/],
    [{ directory: "root" }, /^directory: expected an absolute path/],
    [{ directory: '/srv/"; } EXPORT {' }, /^directory: expected an absolute path of printable ASCII/],
    [{ directory: "/srv/{x}" }, /^directory: /],
    [{ directory: "/srv\nPath = /etc" }, /^directory: /],
    [{ directory: "/nonexistent/root" }, /^directory: .*\[file-unusable\]/],
    [{ directory: "/srv", port: 3000, mountPort: 3000 }, /^mountPort: expected another port/],
    [{ directory: "/srv", squash: "some" }, /^squash: expected "none", "root" or "all"/],
    [{ directory: "/srv", allowedClients: ["10.0.0.0/33"] }, /^allowedClients: /],
    [{ directory: "/srv", allowedClients: ["*"] }, /^allowedClients: /],
    [{ directory: "/srv", allowedClients: ["10.0.0.1; } X {"] }, /^allowedClients: /],
    [{ directory: "/srv", secretInputs: ["directory"] }, /^directory: a secret cannot be used here/],
  ])("refuses %j", async (inputs, message) => {
    const { failures } = await check({}, newsOf(inputs));
    expect(failures.map((failure) => failure.reason)).toEqual([expect.stringMatching(message)]);
  });
});

describe.skipIf(reason !== undefined)(`an NfsExport${suffix}`, () => {
  it("serves the folder, is started again in place with the same file handles, and goes", async () => {
    const directory = join(bed.folder, "root");
    await mkdir(directory);
    await makeGuestRoot(directory);
    const { inputs } = await check({}, newsOf({ directory }));
    const { id, outs } = await create(inputs);
    const target = {
      server: "127.0.0.1",
      port: Number(outs["nfsPort"]),
      mountPort: Number(outs["nfsMountPort"]),
      path: directory,
    };
    const before = await probeNfs(target);
    if (before.kind !== "ok") throw new Error(before.kind);
    const handle = { server: target.server, port: target.port, fileHandle: before.rootFileHandle };
    expect(await handleState(handle)).toBe("good");

    const server = identify(Number(outs["pid"]));
    process.kill(Number(outs["pid"]), "SIGKILL");
    if (server !== undefined) await untilExit(server, 5);
    const lost = await check(inputs, newsOf({ directory }));
    expect(lost.inputs["observed"]).toBe("stopped");
    expect(await diff(id, outs, lost.inputs)).toEqual({
      changes: true,
      replaces: [],
      deleteBeforeReplace: true,
    });
    const again = await update(id, outs, lost.inputs);
    expect(again.outs).toMatchObject({ state: "running", nfsPort: target.port });
    expect(await probeNfs(target)).toMatchObject({ kind: "ok", rootFileHandle: before.rootFileHandle });
    expect((await read(id, again.outs)).props).toMatchObject({ state: "running", pid: again.outs["pid"] });

    await remove(id, again.outs);
    expect(identify(Number(again.outs["pid"]))).toBeUndefined();
    expect(await read(id, again.outs)).toEqual({});
    expect(await readdir(directory)).toContain("sbin");
    await remove(id, again.outs);
  });

  it("is damaged when the folder was made anew: the server has the old one open, and serves it on", async () => {
    const directory = await makeBase(bed);
    const { inputs } = await check({}, newsOf({ directory }));
    const { id, outs } = await create(inputs);
    await rename(directory, `${directory}.old`);
    await makeBase(bed);
    expect((await read(id, outs)).props).toMatchObject({ state: "damaged" });
    const lost = await check(inputs, newsOf({ directory }));
    expect(lost.inputs["observed"]).toBe("damaged");
    expect(await diff(id, outs, lost.inputs)).toMatchObject({ changes: true, replaces: ["observed"] });
    const name = id.split("/")[0];
    expect(bed.lines.filter((line) => line.includes("made anew"))).toEqual([
      `${name}: what it serves is gone or was made anew, or it was never whole; it is made anew, and the VMs on it with it`,
    ]);
    await rm(directory, { recursive: true });
    await rename(`${directory}.old`, directory);
    expect((await read(id, outs)).props).toMatchObject({ state: "running" });
    await remove(id, outs);
  });

  it("names a taken port, and what ganesha said; leaves nothing", async () => {
    const directory = await makeBase(bed);
    const { inputs } = await check({}, newsOf({ directory }));
    const leave = await occupy(Number(inputs["nfsMountPort"]));
    await expect(create(inputs)).rejects.toThrow(/^mountPort: port \d+\/tcp of 127.0.0.1 is in use/);
    await leave();
    await rm(directory, { recursive: true });
    await writeFile(directory, "no folder any more");
    await expect(create(inputs)).rejects.toThrow(
      /the NFS server cannot export the directory.*\[nfs-server-failed\]\n {2}\| [^]*not a directory/,
    );
    expect(await readdir(join(defaultStateDirectory(), ".exports"))).toEqual([]);
  });
});
