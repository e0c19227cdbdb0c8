import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";

import type { Owner } from "../../../provider/backends/backend.js";
import { claimName } from "../../../provider/host/claim.js";
import { confirm } from "../../../provider/host/confirm.js";
import { forget, isForgotten } from "../../../provider/host/forgotten.js";
import { vmDirectory, vmPaths } from "../../../provider/host/paths.js";
import { identify, isAlive, thisProcess } from "../../../provider/host/process.js";
import type { ProcessIdentity } from "../../../provider/host/process.js";
import { readRecord, writeRecord } from "../../../provider/host/record.js";
import { removeVmDirectory } from "../../../provider/host/remove.js";
import type { ClaimAnswer, ClaimOrder } from "./claiming-process.js";
import { mayMount, mountTmpfs, remountReadOnly, temporaryFolder } from "./folders.js";
import { sampleRecord, sampleWork } from "./sample-record.js";

const deadProcess: ProcessIdentity = { ...thisProcess(), startTime: "1" };

const otherOwner = {
  organization: "organization",
  urn: "urn:pulumi:prod::shop::x::web",
  program: "/srv/other",
};

function ownerOf(index: number): Owner {
  return { ...otherOwner, urn: `urn:pulumi:dev::shop::x::vm${index}` };
}

/** A process of its own that claims names; see claiming-process.ts. */
async function claimer() {
  const child = spawn(process.execPath, ["--import", "tsx", join(__dirname, "claiming-process.ts")], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  await lines.next();
  return {
    order: (orders: readonly ClaimOrder[]) => child.stdin.write(`${JSON.stringify(orders)}\n`),
    answer: async () => JSON.parse((await lines.next()).value as string) as ClaimAnswer,
    kill: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGKILL");
      await once(child, "exit");
    },
  };
}

/** A process that could be a VMM: one of its arguments is the control socket. */
function startVmm(controlSocket: string): ProcessIdentity {
  const child = spawn("sh", ["-c", "read line", "vmm", `unix:${controlSocket}`]);
  onTestFinished(() => {
    child.kill("SIGKILL");
  });
  const identity = identify(child.pid ?? 0);
  if (identity === undefined) throw new Error("the VMM did not start");
  return identity;
}

/** What is in a state directory beside the digest cache. */
async function entries(stateDirectory: string): Promise<string[]> {
  const names = await readdir(stateDirectory);
  names.sort();
  return names;
}

describe("claiming a name", () => {
  it("makes the folder and the record in one step", async () => {
    const state = await temporaryFolder();
    const record = sampleRecord();
    const work = sampleWork();
    await claimName(state, record, work);
    expect(await readRecord(state, "web")).toEqual(record);
    expect((await stat(vmDirectory(state, "web"))).mode & 0o777).toBe(0o700);
    expect(await entries(state)).toEqual(["web"]);
    expect(work.lines).toEqual([]);
  });

  it("is refused for another owner's VM, dead or not, and says whose it is", async () => {
    const state = await temporaryFolder();
    const theirs = sampleRecord({ owner: otherOwner, creator: deadProcess });
    await claimName(state, theirs, sampleWork());
    const claim = claimName(state, sampleRecord(), sampleWork());
    await expect(claim).rejects.toMatchObject({ code: "name-taken", input: "vmName" });
    await expect(claim).rejects.toThrow(/urn:pulumi:prod::shop::x::web of the program in \/srv\/other/);
    expect(await readRecord(state, "web")).toEqual(theirs);
    expect(await entries(state)).toEqual(["web"]);
  });

  it.each(["organization", "urn", "program"] as const)(
    "is refused when only the %s differs",
    async (part) => {
      const state = await temporaryFolder();
      const record = sampleRecord({ creator: deadProcess });
      await claimName(state, record, sampleWork());
      const next = sampleRecord({ owner: { ...record.owner, [part]: "other" } });
      await expect(claimName(state, next, sampleWork())).rejects.toMatchObject({ code: "name-taken" });
    },
  );

  it("is refused for a confirmed VM of the same owner", async () => {
    const state = await temporaryFolder();
    const record = sampleRecord({ creator: deadProcess });
    await claimName(state, record, sampleWork());
    await confirm(state, "web", record.instance);
    const claim = claimName(state, sampleRecord(), sampleWork());
    await expect(claim).rejects.toMatchObject({ code: "name-taken" });
    await expect(claim).rejects.toThrow(/this stack's state does not hold/);
    expect(await entries(state)).toEqual(["web"]);
  });

  it("is refused while a live creator of the same owner goes on, after the wait", async () => {
    const state = await temporaryFolder();
    await claimName(state, sampleRecord(), sampleWork());
    const work = sampleWork();
    const claim = claimName(state, sampleRecord(), work, { waitSeconds: 0.3 });
    await expect(claim).rejects.toMatchObject({ code: "create-in-progress" });
    expect(work.lines).toEqual([`web: waiting for process ${process.pid}, which makes the same VM`]);
    expect(await entries(state)).toEqual(["web"]);
  });

  it("succeeds once the live creator has undone its create", async () => {
    const state = await temporaryFolder();
    const first = sampleRecord();
    await claimName(state, first, sampleWork());
    const second = sampleRecord();
    const claim = claimName(state, second, sampleWork());
    await removeVmDirectory(state, "web", first.instance);
    await claim;
    expect(await readRecord(state, "web")).toEqual(second);
    expect(await entries(state)).toEqual(["web"]);
  });

  it("ends with `interrupted` when the engine dies during the wait, and leaves nothing", async () => {
    const state = await temporaryFolder();
    await claimName(state, sampleRecord(), sampleWork());
    const engine = new AbortController();
    const claim = claimName(state, sampleRecord(), {
      signal: engine.signal,
      notice: () => {
        engine.abort();
      },
    });
    await expect(claim).rejects.toMatchObject({ code: "interrupted" });
    expect(await entries(state)).toEqual(["web"]);
  });

  it.each([
    ["torn", (path: string) => writeFile(path, "{")],
    ["missing, beside other files", (path: string) => rm(path)],
  ])("is refused where the record is %s", async (_, damage) => {
    const state = await temporaryFolder();
    await claimName(state, sampleRecord(), sampleWork());
    await writeFile(join(vmDirectory(state, "web"), "stateful.img"), "data");
    await damage(vmPaths(state, "web").record);
    const claim = claimName(state, sampleRecord(), sampleWork());
    await expect(claim).rejects.toMatchObject({ code: "record-unreadable" });
    expect(await readFile(vmPaths(state, "web").statefulDisk, "utf8")).toBe("data");
    expect(await entries(state)).toEqual(["web"]);
  });

  it("is refused where a file has the name", async () => {
    const state = await temporaryFolder();
    await writeFile(join(state, "web"), "");
    await expect(claimName(state, sampleRecord(), sampleWork())).rejects.toMatchObject({
      code: "state-directory",
    });
    expect(await entries(state)).toEqual(["web"]);
  });

  it("leaves the preparations of living processes, and removes those of dead ones", async () => {
    const state = await temporaryFolder();
    const { pid, startTime } = thisProcess();
    const living = `.new-${"a".repeat(16)}-${pid}-${startTime}`;
    await mkdir(join(state, living));
    await mkdir(join(state, `.new-${"b".repeat(16)}-${pid}-1`));
    await mkdir(join(state, `.removing-${"c".repeat(16)}`));
    await claimName(state, sampleRecord(), sampleWork());
    expect(await entries(state)).toEqual([living, "web"]);
  });

  describe.skipIf(!mayMount)("on a broken file system (needs root and mount)", () => {
    it("says that it is full, and leaves nothing", async () => {
      const state = await temporaryFolder();
      mountTmpfs(state, "size=16k,mode=700");
      await writeFile(join(state, "filler"), Buffer.alloc(100_000)).catch(() => undefined);
      await expect(claimName(state, sampleRecord(), sampleWork())).rejects.toThrow(/file system is full/);
      expect(await entries(state)).toEqual(["filler"]);
    });

    it("says that it is read-only", async () => {
      const state = await temporaryFolder();
      mountTmpfs(state, "size=1m,mode=700");
      remountReadOnly(state);
      await expect(claimName(state, sampleRecord(), sampleWork())).rejects.toMatchObject({
        code: "state-directory",
        message: expect.stringMatching(/read-only/) as string,
      });
    });
  });
});

describe("a name of which a VMM outlived the record", () => {
  it("is not given away: two guests would share a root; the process is named, and nothing is left", async () => {
    const state = await temporaryFolder();
    const stray = startVmm(vmPaths(state, "web").kernel);
    const other = startVmm(vmPaths(state, "web2").kernel);
    const claim = claimName(state, sampleRecord(), sampleWork());
    await expect(claim).rejects.toMatchObject({ code: "name-taken", input: "vmName" });
    await expect(claim).rejects.toThrow(`end it with \`kill ${stray.pid}\``);
    expect(await entries(state)).toEqual([]);
    expect(isAlive(stray) && isAlive(other)).toBe(true);
    process.kill(stray.pid, "SIGKILL");
    await expect.poll(() => isAlive(stray)).toBe(false);
    await claimName(state, sampleRecord(), sampleWork());
  });
});

describe("reclaiming the VM of an interrupted create", () => {
  it("ends the recorded VMM, keeps the disks in .lost, gives back the socket, and says so", async () => {
    const state = await temporaryFolder();
    const controlSocket = join(state, "first.sock");
    const server = createServer().listen(controlSocket);
    await once(server, "listening");
    onTestFinished(() => {
      server.close();
    });
    const vmm = startVmm(controlSocket);
    const first = sampleRecord({ creator: deadProcess, controlSocket, vmm, phase: "ready" });
    await claimName(state, first, sampleWork());
    await writeFile(vmPaths(state, "web").statefulDisk, "data");
    const work = sampleWork();
    const second = sampleRecord();
    await claimName(state, second, work);
    expect(await readRecord(state, "web")).toEqual(second);
    expect(isAlive(vmm)).toBe(false);
    const lost = join(state, ".lost", `web-${first.instance}`);
    expect(await readFile(join(lost, "stateful.img"), "utf8")).toBe("data");
    expect(await entries(state)).toEqual([".lost", "web"]);
    expect(work.lines).toEqual([
      `web: the VM of an interrupted create (${first.createdAt}) was powered off; its folder and disks are kept in ${lost}`,
    ]);
  });

  it("finds a VMM that was never recorded, by its control socket", async () => {
    const state = await temporaryFolder();
    const first = sampleRecord({ creator: deadProcess, phase: "prepared" });
    await claimName(state, first, sampleWork());
    const vmm = startVmm(first.controlSocket);
    await claimName(state, sampleRecord(), sampleWork());
    expect(isAlive(vmm)).toBe(false);
  });

  it("does not touch a process that has the VMM's pid by now", async () => {
    const state = await temporaryFolder();
    const innocent = startVmm("/nonexistent/other.sock");
    const first = sampleRecord({ creator: deadProcess, vmm: { ...innocent, startTime: "1" } });
    await claimName(state, first, sampleWork());
    await claimName(state, sampleRecord(), sampleWork());
    expect(isAlive(innocent)).toBe(true);
  });

  it("does not remove a file that the record calls its control socket", async () => {
    const state = await temporaryFolder();
    const controlSocket = join(state, "precious");
    await writeFile(controlSocket, "data");
    await claimName(state, sampleRecord({ creator: deadProcess, controlSocket }), sampleWork());
    await claimName(state, sampleRecord(), sampleWork());
    expect(await readFile(controlSocket, "utf8")).toBe("data");
  });

  it("reclaims what a killed process had claimed", async () => {
    const state = await temporaryFolder();
    const child = await claimer();
    onTestFinished(() => child.kill());
    const first = sampleRecord();
    child.order([[state, first, 1]]);
    expect(await child.answer()).toMatchObject({ code: "ok" });
    await child.kill();
    const second = sampleRecord();
    await claimName(state, second, sampleWork());
    expect(await entries(join(state, ".lost"))).toEqual([`web-${first.instance}`]);
    expect(await readRecord(state, "web")).toEqual(second);
  });
});

describe("many claims at once", () => {
  const PROCESSES = 4;
  const EACH = 16;
  let claimers: Awaited<ReturnType<typeof claimer>>[] = [];

  beforeAll(async () => {
    claimers = await Promise.all(Array.from({ length: PROCESSES }, claimer));
  });
  afterAll(() => Promise.all(claimers.map((child) => child.kill())));

  async function race(
    state: string,
    record: (index: number) => ReturnType<typeof sampleRecord>,
    wait: number,
  ) {
    claimers.forEach((child, index) => {
      const orders = Array.from({ length: EACH }, (_, turn): ClaimOrder => [
        state,
        record(index * EACH + turn),
        wait,
      ]);
      child.order(orders);
    });
    const answers: ClaimAnswer[] = [];
    for (const child of claimers) {
      for (let turn = 0; turn < EACH; turn++) answers.push(await child.answer());
    }
    return answers;
  }

  it("of different resources: one of 64 wins, 63 are told whose the name is, nothing is left", async () => {
    const state = await temporaryFolder();
    const answers = await race(state, (index) => sampleRecord({ owner: ownerOf(index) }), 15);
    const winners = answers.filter(({ code }) => code === "ok");
    expect(winners).toHaveLength(1);
    expect(answers.filter(({ code }) => code === "name-taken")).toHaveLength(63);
    const present = await readRecord(state, "web");
    expect(present?.instance).toBe(winners[0]?.instance);
    for (const { code, message } of answers) if (code !== "ok") expect(message).toContain(present?.owner.urn);
    expect(await entries(state)).toEqual(["web"]);
  }, 60_000);

  it("of one resource: one of 64 wins, 63 are told that it is in progress", async () => {
    const state = await temporaryFolder();
    const answers = await race(state, () => sampleRecord(), 1);
    expect(answers.filter(({ code }) => code === "ok")).toHaveLength(1);
    expect(answers.filter(({ code }) => code === "create-in-progress")).toHaveLength(63);
    expect(await entries(state)).toEqual(["web"]);
  }, 60_000);

  it("on the VM of an interrupted create: reclaimed once, and one of 64 wins", async () => {
    const state = await temporaryFolder();
    const first = sampleRecord({ creator: deadProcess });
    await claimName(state, first, sampleWork());
    const vmm = startVmm(first.controlSocket);
    await writeRecord(state, { ...first, vmm });
    const answers = await race(state, () => sampleRecord(), 1);
    const winners = answers.filter(({ code }) => code === "ok");
    expect(winners).toHaveLength(1);
    expect(answers.filter(({ code }) => code === "create-in-progress")).toHaveLength(63);
    expect((await readRecord(state, "web"))?.instance).toBe(winners[0]?.instance);
    expect(await entries(join(state, ".lost"))).toEqual([`web-${first.instance}`]);
    expect(answers.flatMap(({ lines }) => lines).filter((line) => line.includes(".lost"))).toHaveLength(1);
    expect(await entries(state)).toEqual([".lost", "web"]);
  }, 60_000);

  it("killed at any moment, leave a name that can be claimed again, and nothing else", async () => {
    const state = await temporaryFolder();
    for (let turn = 0; turn < 6; turn++) {
      const child = await claimer();
      onTestFinished(() => child.kill());
      child.order(
        Array.from({ length: 32 }, (_, index): ClaimOrder => [
          state,
          sampleRecord({ vmName: `vm${index}` }),
          1,
        ]),
      );
      // After a different number of answers each time; 0 kills it as soon as it was asked.
      for (let answers = 0; answers < turn * 5; answers++) await child.answer();
      await child.kill();
    }
    const records = Array.from({ length: 32 }, (_, index) => sampleRecord({ vmName: `vm${index}` }));
    for (const record of records) await claimName(state, record, sampleWork());
    for (const record of records) expect(await readRecord(state, record.vmName)).toEqual(record);
    expect((await entries(state)).filter((name) => name.startsWith("."))).toEqual([".lost"]);
  }, 60_000);
});

describe("forgetting", () => {
  it("moves the folder to .lost, leaves its process alone, and says so", async () => {
    const state = await temporaryFolder();
    const record = sampleRecord();
    await claimName(state, record, sampleWork());
    const vmm = startVmm(record.controlSocket);
    await writeRecord(state, { ...record, vmm, phase: "ready" });
    const lines: string[] = [];
    await forget(state, "web", (line) => lines.push(line));
    expect(isAlive(vmm)).toBe(true);
    expect(await isForgotten(state, "web")).toBe(true);
    expect(await readRecord(state, "web")).toBeUndefined();
    const lost = join(state, ".lost", `web-${record.instance}`);
    expect(lines).toEqual([
      `web is forgotten; its folder is now ${lost}`,
      `process ${vmm.pid} of web still runs and was not ended; to end it: kill ${vmm.pid}`,
    ]);
    expect(await entries(lost)).toEqual(["vm.json"]);
  });

  it("works where there is no VM, and where the record is torn", async () => {
    const state = await temporaryFolder();
    const lines: string[] = [];
    expect(await isForgotten(state, "web")).toBe(false);
    await forget(state, "web", (line) => lines.push(line));
    expect(lines).toEqual(["web is forgotten; no folder of it was here"]);
    await claimName(state, sampleRecord({ vmName: "db" }), sampleWork());
    await writeFile(vmPaths(state, "db").record, "{");
    await forget(state, "db", (line) => lines.push(line));
    expect(lines[1]).toMatch(/^db is forgotten; its folder is now .*\/\.lost\/db-[0-9a-f]{16}$/);
    expect(await entries(state)).toEqual([".forgotten", ".lost"]);
  });

  it("ends when a VM takes the name again", async () => {
    const state = await temporaryFolder();
    await forget(state, "web", () => undefined);
    await claimName(state, sampleRecord(), sampleWork());
    expect(await isForgotten(state, "web")).toBe(false);
  });
});
