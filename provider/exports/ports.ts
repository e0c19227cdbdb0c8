/** The ports of an export: which follow from its name, and who has them. */

import { createHash } from "node:crypto";
import { isIPv4 } from "node:net";

import type { Owner } from "../backends/backend.js";
import { MicroVmError } from "../errors.js";
import { assertPortFree } from "../host/port.js";
import { asFailure, type Failure } from "../spec/validate.js";
import { exportName } from "./inputs.js";
import { holderOf } from "./listening.js";
import { listExports, readExport, type ServingPlace } from "./record.js";

/** Ports that no service of note has, and from which Linux picks none for outgoing connections (net.ipv4.ip_local_port_range). */
const FIRST_PORT = 20_000;
const PORTS = 10_000;

/**
 * An even port that a preview knows; the next one is free for mountd. It follows from the URN, and from the state directory, since two
 * people on one host may each have a stack with that URN; within a state directory a URN has one export.
 */
export function portOf(urn: string, stateDirectory: string): number {
  const hash = createHash("sha256").update(`${urn} nfs ${stateDirectory}`).digest();
  return FIRST_PORT + (hash.readUInt32BE(0) % (PORTS / 2)) * 2;
}

/** The ports that a server listens on, each with the input that sets it. AgentFS has one for both services. */
export function portsOf({ port, mountPort }: ServingPlace): ["port" | "mountPort", number][] {
  return mountPort === port
    ? [["port", port]]
    : [
        ["port", port],
        ["mountPort", mountPort],
      ];
}

/**
 * Makes sure that nothing listens where an export is to be served.
 *
 * @throws MicroVmError `port-taken`, with who has it; `host-unusable` when this user may not, or no interface has the address.
 */
export async function assertPortsFree(place: ServingPlace): Promise<void> {
  const { address } = place;
  for (const [input, port] of portsOf(place)) {
    try {
      await assertPortFree("tcp", address, port);
    } catch (error) {
      if (!(error instanceof MicroVmError)) throw error;
      if (error.code === "port-taken") {
        const text = `port ${port}/tcp of ${address} is in use by ${await holderOf(address, port)}; give another ${input}, or end that program`;
        throw new MicroVmError("port-taken", text, { input, cause: error });
      }
      const text = `nothing can listen at ${address} port ${port}: give an address of this host with bind, and a port from 1024 up`;
      throw new MicroVmError(error.code, text, { input: "bind", cause: error });
    }
  }
}

/** The port of one export that another one's server listens on as well, with the input that sets it. */
export function sharedPort(
  one: ServingPlace,
  other: ServingPlace,
): ["port" | "mountPort", number] | undefined {
  if (!meet(one.address, other.address)) return undefined;
  const taken = new Set(portsOf(other).map(([, port]) => port));
  return portsOf(one).find(([, port]) => taken.has(port));
}

const planned = new Map<string, ServingPlace>();

/**
 * What a preview can say of the ports of an export: that another of the same program has them, and, where it is new, that another
 * program does. Those of an export of the same stack are the up's matter, in which that one may go.
 *
 * @param place Not all of it may be known yet.
 */
export async function portFailures(
  place: ServingPlace,
  { owner, stateDirectory, isNew }: PortsAsked,
): Promise<Failure[]> {
  if (![place.port, place.mountPort].every(Number.isInteger) || !isIPv4(place.address)) return [];
  const { urn } = owner;
  planned.set(urn, place);
  for (const [other, otherPlace] of planned) {
    const shared = other === urn ? undefined : sharedPort(place, otherPlace);
    if (shared !== undefined) return [asFailure(portOfExport(shared, exportName(other), other), "port")];
  }
  if (!isNew || (await readExport(stateDirectory, exportName(urn))) !== undefined) return [];
  for (const other of await listExports(stateDirectory)) {
    const shared = sharedPort(place, other.place);
    if (shared === undefined) continue;
    return stackOf(other.owner.urn) === stackOf(urn)
      ? []
      : [asFailure(portOfExport(shared, other.name, other.owner.urn), "port")];
  }
  try {
    await assertPortsFree(place);
    return [];
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    // The bridge's address comes with the bridge, at the latest in the up.
    return error.code === "port-taken" ? [asFailure(error, "port")] : [];
  }
}

/** For whom ports are asked about. */
export interface PortsAsked {
  readonly owner: Owner;
  readonly stateDirectory: string;
  /** Whether a server is to be started that does not run now. */
  readonly isNew: boolean;
}

/** The error of two exports on one port. */
export function portOfExport(
  [input, port]: readonly [string, number],
  name: string,
  urn: string,
): MicroVmError {
  const text = `port ${port} is that of the export ${name} (${urn}); give one of the two another port`;
  return new MicroVmError("port-taken", text, { input });
}

/** Stack and project of a URN: its first two parts. */
function stackOf(urn: string): string {
  return urn.split("::", 2).join("::");
}

/** Whether two addresses listen for the same connections. */
function meet(one: string, other: string): boolean {
  return one === other || one === "0.0.0.0" || other === "0.0.0.0";
}
