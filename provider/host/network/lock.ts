/** One change of the host's network at a time, in all processes that share it. */

import { MicroVmError } from "../../errors.js";
import { type Ran, withFileLockAnd } from "../file-lock.js";

/** What is locked: the network namespace itself, so that exactly those wait for each other who change the same interfaces. */
const NAMESPACE = "/proc/self/ns/net";

/** Each holder has it for some hundredths of a second. */
const TIMEOUT_SECONDS = 60;

let last: Promise<unknown> = Promise.resolve();
let held: number | undefined;

/** Descriptor of the lock while this process has it: a program that is given it keeps the lock, should this process be killed meanwhile. */
export function heldLock(): number | undefined {
  return held;
}

/**
 * Runs `act` while no other process does so, nor a program that one which was killed had started.
 *
 * @param command Program and arguments, run as soon as the lock is had: `act` is given what it has come to.
 * @throws MicroVmError `host-unusable` when the lock is not to be had within 60 s.
 */
export async function withNetworkLock<Result>(
  act: (ran: Ran) => Promise<Result>,
  command: readonly string[] = ["true"],
): Promise<Result> {
  const mine = last.then(
    async () =>
      await withFileLockAnd(NAMESPACE, TIMEOUT_SECONDS, busy, command, async (descriptor, ran) => {
        held = descriptor;
        try {
          return await act(ran);
        } finally {
          held = undefined;
        }
      }),
  );
  last = mine.catch(() => undefined); // whoever called it is told; the next in the row only waits
  return await mine;
}

function busy(): Error {
  return new MicroVmError(
    "host-unusable",
    `another process has held the lock of this host's network (${NAMESPACE}) for ${TIMEOUT_SECONDS} s; see which with \`lslocks\`, end it, and run again`,
  );
}
