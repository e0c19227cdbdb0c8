import { spawn } from "node:child_process";
import { once } from "node:events";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { chmod, copyFile } from "node:fs/promises";

import { describe, expect, it, onTestFinished } from "vitest";

import {
  endProcess,
  findByArgument,
  identify,
  isAlive,
  isSameProcess,
  signalProcess,
  thisProcess,
  untilExit,
} from "../../../provider/host/process.js";
import type { ProcessIdentity } from "../../../provider/host/process.js";
import { isOnPath } from "../../lab/programs.js";
import { temporaryFolder } from "./folders.js";

function start(script: string, ...args: string[]): { pid: number; ended: Promise<unknown> } {
  const child = spawn("sh", ["-c", script, "sh", ...args], { stdio: ["pipe", "ignore", "ignore"] });
  onTestFinished(() => {
    child.kill("SIGKILL");
  });
  if (child.pid === undefined) throw new Error("sh did not start");
  return { pid: child.pid, ended: once(child, "exit") };
}

function identityOf(pid: number): ProcessIdentity {
  const identity = identify(pid);
  if (identity === undefined) throw new Error(`no process ${pid}`);
  return identity;
}

describe("a process identity", () => {
  it("is alive while the process runs and dead after it", async () => {
    const { pid, ended } = start("exec sleep 60");
    const identity = identityOf(pid);
    expect(isAlive(identity)).toBe(true);
    expect(signalProcess(identity, "SIGKILL")).toBe(true);
    await ended;
    expect(isAlive(identity)).toBe(false);
    expect(identify(pid)).toBeUndefined();
    expect(signalProcess(identity, "SIGKILL")).toBe(false);
  });

  it("is dead for a process of the same pid with another start time, and takes no signal", () => {
    const reused = { ...thisProcess(), startTime: "1" };
    expect(isAlive(reused)).toBe(false);
    expect(signalProcess(reused, "SIGKILL")).toBe(false);
    expect(isSameProcess(reused, thisProcess())).toBe(false);
  });

  it("is dead after a reboot", () => {
    expect(isAlive({ ...thisProcess(), bootId: "00000000-0000-0000-0000-000000000000" })).toBe(false);
  });

  it.skipIf(!isOnPath("python3"))(
    "is alive while its first thread alone has ended (skipped without python3)",
    async () => {
      // exit(2), which ends the calling thread (60 on x86-64), while another one goes on.
      const program =
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(1.5,)).start(); ctypes.CDLL(None).syscall(60, 0)";
      const { pid, ended } = start('exec python3 -c "$1"', program);
      const identity = identityOf(pid);
      await expect.poll(() => readFileSync(`/proc/${pid}/stat`, "utf8")).toMatch(/\) Z /);
      expect(isAlive(identity)).toBe(true);
      await ended;
      expect(isAlive(identity)).toBe(false);
    },
  );

  it("is dead as a zombie", async () => {
    // The shell's child ends, and the program that the shell becomes never waits for it.
    const { pid } = start("sleep 0.3 & exec sleep 60");
    const childrenFile = `/proc/${pid}/task/${pid}/children`;
    await expect.poll(() => readFileSync(childrenFile, "utf8").trim()).not.toBe("");
    const childPid = Number(readFileSync(childrenFile, "utf8").trim());
    const child = identityOf(childPid);
    expect(await untilExit(child, 10)).toBe(true);
    expect(readFileSync(`/proc/${childPid}/stat`, "utf8")).toContain(") Z ");
    expect(identify(childPid)).toBeUndefined();
  });

  it("is found for a program with blanks and parentheses in its name", async () => {
    const folder = await temporaryFolder();
    await copyFile("/bin/sleep", `${folder}/a) R 1 (b`);
    await chmod(`${folder}/a) R 1 (b`, 0o755);
    const { pid } = start(`exec '${folder}/a) R 1 (b' 60`);
    await expect.poll(() => readFileSync(`/proc/${pid}/stat`, "utf8")).toContain("(a) R 1 (b)");
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split("(a) R 1 (b) ")[1]?.split(" ");
    expect(identityOf(pid).startTime).toBe(fields?.[19]);
  });
});

describe("findByArgument", () => {
  it("finds the process that carries the text in an argument, and no other", () => {
    const text = `/run/${randomBytes(8).toString("hex")}.sock`;
    expect(findByArgument(text)).toEqual([]);
    const { pid } = start("read line", `unix:${text},server=on`);
    expect(findByArgument(text).map((found) => found.pid)).toEqual([pid]);
  });
});

describe("untilExit and endProcess", () => {
  it("give up after the time", async () => {
    expect(await untilExit(thisProcess(), 0.05)).toBe(false);
  });

  it("end a process that ignores SIGTERM", async () => {
    const { pid } = start("trap '' TERM; while :; do sleep 0.05; done");
    const identity = identityOf(pid);
    await endProcess(identity, 0.2);
    expect(isAlive(identity)).toBe(false);
  });

  it("end a stopped process", async () => {
    const { pid } = start("exec sleep 60");
    const identity = identityOf(pid);
    signalProcess(identity, "SIGSTOP");
    await endProcess(identity, 0.2);
    expect(isAlive(identity)).toBe(false);
  });
});
