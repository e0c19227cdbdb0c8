/** Host ports of the server's VMs: each port of a guest gets one of its own, for the life of the VM. */

import { randomInt } from "node:crypto";
import type { PortForward } from "../boot/boot.js";
import { MicroVmError } from "../errors.js";
import { assertPortFree } from "../host/port.js";
import { Refusal } from "./refusal.js";

/** Below the ports that Linux gives to outgoing connections (ip_local_port_range, 32768), and above the well-known ones. */
const FIRST_PORT = 20_000;
const LAST_PORT = 29_999;
const MOST_TRIES = 50;

/**
 * Forwards from free ports of this host's loopback address to ports of a guest. Whether they are really to be had, the lease
 * of each decides when the VM is made: a VM that is off has its ports, too, and nobody listens there.
 *
 * @throws Refusal when no free port is found.
 */
export async function forwardsTo(guestPorts: readonly number[]): Promise<readonly PortForward[]> {
  const forwards: PortForward[] = [];
  for (const guestPort of guestPorts) {
    const hostPort = await freePort(new Set(forwards.map((forward) => forward.hostPort)));
    forwards.push({ hostPort, guestPort, protocol: "tcp", hostAddress: "127.0.0.1" });
  }
  return forwards;
}

async function freePort(taken: ReadonlySet<number>): Promise<number> {
  for (let tries = 0; tries < MOST_TRIES; tries += 1) {
    const port = randomInt(FIRST_PORT, LAST_PORT + 1);
    if (!taken.has(port) && (await isFree(port))) return port;
  }
  const range = `${FIRST_PORT} to ${LAST_PORT}`;
  throw new Refusal(503, `this host has no free port left for the guest's (of ${range}); delete a VM`);
}

async function isFree(port: number): Promise<boolean> {
  try {
    await assertPortFree("tcp", "127.0.0.1", port);
    return true;
  } catch (error) {
    if (error instanceof MicroVmError && error.code === "port-taken") return false;
    throw error;
  }
}
