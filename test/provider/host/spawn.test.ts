import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it, onTestFinished } from "vitest";

import { identify, isAlive, signalProcess, untilExit } from "../../../provider/host/process.js";
import type { ProcessIdentity } from "../../../provider/host/process.js";
import { raiseFileSizeLimit, spawnDetached } from "../../../provider/host/spawn.js";
import type { SpawnRequest } from "../../../provider/host/spawn.js";
import { temporaryFolder } from "./folders.js";

const MIB = 1_048_576;

/** Starts a shell script as the program, with $1, $2 … as given; killed when the test is over. */
async function start(
  script: string,
  changes: Partial<SpawnRequest> & { readonly log: string },
  ...args: string[]
): Promise<ProcessIdentity> {
  const identity = await spawnDetached({
    file: "sh",
    args: ["-c", script, "program", ...args],
    fileSizeLimitMiB: 1,
    ...changes,
  });
  onTestFinished(() => {
    signalProcess(identity, "SIGKILL");
  });
  return identity;
}

async function sizeOf(path: string): Promise<number> {
  return (await stat(path)).size;
}

/** File descriptors below 16: Node closes those for its children, whatever it inherited itself. */
async function openFiles(pid: number): Promise<number[]> {
  const descriptors = (await readdir(`/proc/${pid}/fd`)).map(Number);
  return descriptors.filter((descriptor) => descriptor < 16);
}

/** Children of a process that are alive. */
function childrenOf(pid: number): ProcessIdentity[] {
  const pids = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").map(Number);
  return pids.flatMap((child) => identify(child) ?? []);
}

describe("a detached program", () => {
  it("runs under the pid that is returned, in a session of its own, with its output in the log", async () => {
    const folder = await temporaryFolder();
    const log = join(folder, "vmm.log");
    const { pid } = await start('echo "out $$"; echo err >&2; exec sleep 60', { log });
    expect(await readFile(log, "utf8")).toBe(`out ${pid}\nerr\n`);
    expect((await stat(log)).mode & 0o777).toBe(0o600);
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ");
    expect(fields?.[3]).toBe(String(pid)); // session: field 6 of proc_pid_stat(5)
    expect(await openFiles(pid)).toEqual([0, 1, 2]);
    expect(execFileSync("readlink", [`/proc/${pid}/cwd`], { encoding: "utf8" })).toBe("/\n");
  });

  it("appends to the log of an earlier start", async () => {
    const log = join(await temporaryFolder(), "vmm.log");
    await writeFile(log, "before\n");
    await start("echo after; exec sleep 60", { log });
    expect(await readFile(log, "utf8")).toBe("before\nafter\n");
  });

  it("gets each argument as it is, and none of our secrets", async () => {
    const log = join(await temporaryFolder(), "vmm.log");
    process.env["PULUMI_CONFIG_PASSPHRASE"] = "hunter2";
    onTestFinished(() => {
      delete process.env["PULUMI_CONFIG_PASSPHRASE"];
    });
    const args = ["a b", "$(id)", "'", '"', "", "--", "ä", "x\ny"];
    const { pid } = await start('printf "<%s>" "$@"; while :; do sleep 1; done', { log }, ...args);
    expect(await readFile(log, "utf8")).toBe(args.map((argument) => `<${argument}>`).join(""));
    expect(readFileSync(`/proc/${pid}/environ`, "utf8")).not.toContain("hunter2");
    expect(readFileSync(`/proc/${pid}/environ`, "utf8")).toContain("PATH=");
  });

  it("outlives the process that started it, even one that is killed", async () => {
    const folder = await temporaryFolder();
    const script =
      'require("tsx/cjs"); require("./provider/host/spawn.ts").spawnDetached(JSON.parse(process.argv[1]))' +
      ".then((identity) => { console.log(JSON.stringify(identity)); setInterval(() => {}, 1000); })";
    const request = { file: "sleep", args: ["60"], log: join(folder, "vmm.log"), fileSizeLimitMiB: 1 };
    const parent = spawn(process.execPath, ["-e", script, JSON.stringify(request)], { detached: true });
    const [output] = (await once(parent.stdout, "data")) as [Buffer];
    const identity = JSON.parse(output.toString()) as ProcessIdentity;
    onTestFinished(() => {
      signalProcess(identity, "SIGKILL");
    });
    process.kill(-(parent.pid ?? 0), "SIGKILL"); // the whole process group, as a terminal's hang-up
    await once(parent, "exit");
    expect(isAlive(identity)).toBe(true);
  });

  it("does not keep its starter from ending", async () => {
    const folder = await temporaryFolder();
    const script =
      'require("tsx/cjs"); require("./provider/host/spawn.ts").spawnDetached(JSON.parse(process.argv[1]))' +
      ".then((identity) => console.log(JSON.stringify(identity)))";
    const request = { file: "sleep", args: ["60"], log: join(folder, "vmm.log"), fileSizeLimitMiB: 1 };
    const output = execFileSync(process.execPath, ["-e", script, JSON.stringify(request)], {
      encoding: "utf8",
      timeout: 15_000,
    });
    const identity = JSON.parse(output) as ProcessIdentity;
    expect(signalProcess(identity, "SIGKILL")).toBe(true);
  });
});

describe("a program that cannot run", () => {
  it("is named when it is not found", async () => {
    const log = join(await temporaryFolder(), "vmm.log");
    for (const file of ["qemu-system-none", "/nonexistent/qemu"]) {
      const starting = spawnDetached({ file, args: [], log, fileSizeLimitMiB: 1 });
      await expect(starting).rejects.toMatchObject({ code: "host-unusable" });
      await expect(starting).rejects.toThrow(file);
    }
  });

  it("is reported with its own words when it ends at once, without those of earlier starts", async () => {
    const log = join(await temporaryFolder(), "vmm.log");
    await writeFile(log, "old words\n");
    const starting = start("echo 'bad option' >&2; exit 3", { log });
    await expect(starting).rejects.toMatchObject({ code: "vmm-failed" });
    await expect(starting).rejects.toThrow(/ended at once \(exit code 3\): bad option$/);
    await expect(start("exit 0", { log })).rejects.toThrow(/exit code 0\): it printed nothing/);
    await expect(start("kill -SEGV $$", { log })).rejects.toThrow(/signal SIGSEGV/);
  });

  it("is reported when it is no executable of this machine", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "qemu"), Buffer.from("\u007fELF wrong"), { mode: 0o755 });
    const request = { file: join(folder, "qemu"), args: [], log: join(folder, "log"), fileSizeLimitMiB: 1 };
    await expect(spawnDetached(request)).rejects.toThrow(/qemu ended at once/);
  });

  it("is the state directory's fault when the log cannot be written", async () => {
    const folder = await temporaryFolder();
    await mkdir(join(folder, "log"));
    await expect(start("exec sleep 60", { log: join(folder, "none", "log") })).rejects.toMatchObject({
      code: "state-directory",
    });
    await expect(start("exec sleep 60", { log: join(folder, "log") })).rejects.toMatchObject({
      code: "state-directory",
    });
  });
});

describe("the limit of a file's size", () => {
  it("drops what goes beyond, and the program goes on", async () => {
    const folder = await temporaryFolder();
    const log = join(folder, "vmm.log");
    // 300 times 10 kB, each by a process of its own, into one file; then a sign of life elsewhere.
    const script =
      'i=0; while [ $i -lt 300 ]; do head -c 10000 /dev/zero; i=$((i+1)); done > "$1/console.log" 2> /dev/null; ' +
      'echo $i > "$1/alive"; exec sleep 60';
    const identity = await start(script, { log }, folder);
    await expect
      .poll(() => readFile(join(folder, "alive"), "utf8").catch(() => ""), { timeout: 15_000 })
      .toBe("300\n");
    expect(await sizeOf(join(folder, "console.log"))).toBe(MIB);
    expect(isAlive(identity)).toBe(true);
  });

  it("holds for the program's own writes and its log, without a signal", async () => {
    const folder = await temporaryFolder();
    const log = join(folder, "vmm.log");
    const program =
      'const { openSync, writeSync } = require("node:fs"); const fd = openSync(process.argv[1], "w"); let code;' +
      "for (let i = 0; i < 30; i++) try { writeSync(fd, Buffer.alloc(100000)); } catch (error) { code = error.code; }" +
      "try { writeSync(1, Buffer.alloc(2000000)); writeSync(1, Buffer.alloc(1)); } catch {}" +
      "const alive = openSync(process.argv[2], 'w'); writeSync(alive, String(code)); setInterval(() => {}, 1000);";
    const identity = await spawnDetached({
      file: process.execPath,
      args: ["-e", program, join(folder, "big"), join(folder, "alive")],
      log,
      fileSizeLimitMiB: 1,
    });
    onTestFinished(() => {
      signalProcess(identity, "SIGKILL");
    });
    await expect
      .poll(() => readFile(join(folder, "alive"), "utf8").catch(() => ""), { timeout: 15_000 })
      .toBe("EFBIG");
    expect(await sizeOf(join(folder, "big"))).toBe(MIB);
    expect(await sizeOf(log)).toBe(MIB);
    expect(isAlive(identity)).toBe(true);
  });

  it("looks at the offset in a file that is larger already, and can be raised while the program runs", async () => {
    const folder = await temporaryFolder();
    const log = join(folder, "vmm.log");
    execFileSync("truncate", ["-s", "8M", join(folder, "disk")]);
    const script =
      'while :; do dd if=/dev/zero of="$1/disk" bs=1M seek=4 count=1 conv=notrunc 2> /dev/null && echo yes || echo no; sleep 0.05; done';
    const identity = await start(script, { log }, folder);
    await expect.poll(() => readFile(log, "utf8")).toContain("no\n");
    await raiseFileSizeLimit(identity, 8);
    await expect.poll(() => readFile(log, "utf8")).toContain("yes\n");
    signalProcess(identity, "SIGKILL");
    await untilExit(identity, 5);
    await expect(raiseFileSizeLimit(identity, 9)).rejects.toMatchObject({ code: "vmm-failed" });
  });
});

describe("a console beside a large disk", () => {
  it("has a limit of its own, goes on after it, and its writer ends with the program", async () => {
    const folder = await temporaryFolder();
    const file = join(folder, "console.log");
    await writeFile(file, "of the start before\n");
    const script =
      'echo first; echo diagnostics >&2; head -c 3000000 /dev/zero; echo last; truncate -s 64M "$1/disk"; ' +
      'echo $? > "$1/alive"; exec sleep 60';
    const identity = await start(
      script,
      { log: join(folder, "vmm.log"), fileSizeLimitMiB: 64, console: { file, limitMiB: 1 } },
      folder,
    );
    await expect
      .poll(() => readFile(join(folder, "alive"), "utf8").catch(() => ""), { timeout: 15_000 })
      .toBe("0\n");
    expect(await sizeOf(file)).toBe(MIB);
    expect((await readFile(file)).subarray(0, 6).toString()).toBe("first\n");
    expect(await readFile(join(folder, "vmm.log"), "utf8")).toContain("diagnostics\n");
    expect(await openFiles(identity.pid)).toEqual([0, 1, 2]);
    expect(new Set(await readdir(folder))).toEqual(new Set(["alive", "console.log", "disk", "vmm.log"]));
    const [writer] = childrenOf(identity.pid);
    expect(writer !== undefined && isAlive(writer)).toBe(true);
    signalProcess(identity, "SIGKILL");
    expect(writer !== undefined && (await untilExit(writer, 5))).toBe(true);
  });

  it("shows each line as it is written", async () => {
    const folder = await temporaryFolder();
    const file = join(folder, "console.log");
    await start("echo first; exec sleep 60", {
      log: join(folder, "vmm.log"),
      console: { file, limitMiB: 1 },
    });
    await expect.poll(() => readFile(file, "utf8")).toBe("first\n");
    expect((await stat(file)).mode & 0o777).toBe(0o600);
  });

  it("is an error when it cannot be written", async () => {
    const folder = await temporaryFolder();
    const console = { file: join(folder, "none", "console.log"), limitMiB: 1 };
    await expect(start("exec sleep 60", { log: join(folder, "vmm.log"), console })).rejects.toMatchObject({
      code: "vmm-failed",
    });
  });
});
