/** One change of the host's network at a time, in all processes that share it. */

import { spawn } from "node:child_process";
import { once } from "node:events";

import { MicroVmError } from "../../errors.js";
import { findProgram } from "../program.js";

/** What is locked: the network namespace itself, so that exactly those wait for each other who change the same interfaces. */
const NAMESPACE = "/proc/self/ns/net";

/** Each holder has it for some hundredths of a second. */
const TIMEOUT_SECONDS = 60;

let last: Promise<unknown> = Promise.resolve();

/**
 * Runs `act` while no other process does so. The lock is that of flock(2), held by a small process that ends with this one: however
 * this one ends, nothing stays locked.
 *
 * @throws MicroVmError `host-unusable` when the lock is not to be had within 60 s.
 */
export async function withNetworkLock<Result>(act: () => Promise<Result>): Promise<Result> {
  const mine = last.then(async () => await locked(act));
  last = mine.catch(() => undefined); // whoever called it is told; the next in the row only waits
  return await mine;
}

async function locked<Result>(act: () => Promise<Result>): Promise<Result> {
  const flock = findProgram("flock", "install the package util-linux");
  const child = spawn(
    flock,
    ["--timeout", String(TIMEOUT_SECONDS), NAMESPACE, "sh", "-c", "echo locked; exec cat"],
    {
      stdio: ["pipe", "pipe", "ignore"],
    },
  );
  const ended = once(child, "close");
  const [first] = await Promise.race([once(child.stdout, "data"), ended]);
  if (!(first instanceof Buffer)) {
    throw new MicroVmError(
      "host-unusable",
      `another process has held the lock of this host's network (${NAMESPACE}) for ${TIMEOUT_SECONDS} s; see which with \`lslocks\`, end it, and run again`,
    );
  }
  try {
    return await act();
  } finally {
    child.stdin.end();
    await ended;
  }
}
