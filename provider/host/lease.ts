/**
 * Host-wide leases: what two VMs of this user cannot both have, whatever state directories they are in.
 *
 * A lease is a folder, `RUNTIME/leases/tcp-8080/127.0.0.1/` or `RUNTIME/leases/guest-address/10.20.7.9/`, see lease-place.ts.
 * A lease of a port on all addresses is the whole folder `tcp-8080/` with `0.0.0.0/` inside.
 */

import { isIPv4 } from "node:net";
import { join } from "node:path";

import { MicroVmError, shown } from "../errors.js";
import {
  EVERY,
  evict,
  holderOf,
  type LeaseHolder,
  leasesDirectory,
  namesIn,
  newLease,
  release,
  retire,
  take,
} from "./lease-place.js";
import { checkedInstance } from "./paths.js";
import { assertPortFree } from "./port.js";

export type { LeaseHolder } from "./lease-place.js";

/** A port of this host. */
export interface PortLease {
  readonly protocol: "tcp" | "udp";
  /** IPv4 address that listens; `0.0.0.0` stands for every address, and conflicts with each. */
  readonly address: string;
  /** 1 to 65535. */
  readonly port: number;
}

/** What of a VM on a tap is one's alone: its address on the links of this host, an existing tap, its vsock's context id. */
export interface UniqueLease {
  readonly kind: "guest-address" | "tap" | "vsock-cid";
  /** IPv4 address, name of an interface, or number in decimal. */
  readonly value: string;
}

const UNIQUE_KINDS: readonly UniqueLease["kind"][] = ["guest-address", "tap", "vsock-cid"];

/**
 * Takes a port for an instance whose name is claimed. Taking again what the instance has succeeds. A lease of
 * which the record is gone is taken over.
 *
 * @throws MicroVmError `port-taken` when another VM has it (says which) or another program listens there;
 * `host-unusable` when this user may not listen there or no interface has the address.
 */
export async function takeLease(
  lease: PortLease,
  holder: LeaseHolder,
  env: NodeJS.ProcessEnv = process.env,
): Promise<void> {
  const leases = await leasesDirectory(env);
  const group = join(leases, groupOf(lease));
  const held = newLease(holder);
  const taken = await take(leases, group, lease.address, held);
  if (taken === "had") return;
  if (taken !== "taken") throw portTaken(lease, taken);
  try {
    // Renamed in beside a lease of all addresses: that one was first.
    if (lease.address !== EVERY) {
      const first = await evict(leases, join(group, EVERY), held);
      if (first !== "gone" && first !== "own") throw portTaken(lease, first);
    }
    await assertPortFree(lease.protocol, lease.address, lease.port);
  } catch (error) {
    await retire(leases, join(group, lease.address), held.id);
    throw error;
  }
}

/**
 * Takes what is one VM's alone, for an instance whose name is claimed. Taking again what the instance has succeeds. A lease of which
 * the record is gone is taken over.
 *
 * @returns Who has it, when another VM does; else undefined.
 */
export async function takeUnique(
  { kind, value }: UniqueLease,
  holder: LeaseHolder,
  env: NodeJS.ProcessEnv = process.env,
): Promise<LeaseHolder | undefined> {
  const leases = await leasesDirectory(env);
  const taken = await take(leases, join(leases, kind), value, newLease(holder));
  return taken === "had" || taken === "taken" ? undefined : taken;
}

/** The values that the instance has of a kind. */
export async function uniqueValues(
  kind: UniqueLease["kind"],
  instance: string,
  env: NodeJS.ProcessEnv = process.env,
): Promise<string[]> {
  const group = join(await leasesDirectory(env), kind);
  const values: string[] = [];
  for (const value of await namesIn(group)) {
    if ((await holderOf(join(group, value)))?.instance === instance) values.push(value);
  }
  return values;
}

/** Gives back what is the instance's alone; its ports stay. Idempotent. */
export async function releaseUnique(instance: string, env: NodeJS.ProcessEnv = process.env): Promise<void> {
  const leases = await leasesDirectory(env);
  for (const kind of UNIQUE_KINDS) {
    for (const value of await namesIn(join(leases, kind))) {
      await release(leases, join(leases, kind, value), checkedInstance(instance));
    }
  }
}

/** Gives one lease back, if the instance has it. */
export async function releaseLease(
  lease: PortLease,
  instance: string,
  env: NodeJS.ProcessEnv = process.env,
): Promise<void> {
  const leases = await leasesDirectory(env);
  await release(leases, join(leases, groupOf(lease), lease.address), checkedInstance(instance));
}

/** Gives back all that the instance has. Idempotent. */
export async function releaseLeases(instance: string, env: NodeJS.ProcessEnv = process.env): Promise<void> {
  await keepLeases(instance, [], env);
  await releaseUnique(instance, env);
}

/** Gives back all ports that the instance has but these. Idempotent. */
export async function keepLeases(
  instance: string,
  kept: readonly PortLease[],
  env: NodeJS.ProcessEnv = process.env,
): Promise<void> {
  const leases = await leasesDirectory(env);
  for (const group of await namesIn(leases)) {
    if (group.startsWith(".") || isUniqueKind(group)) continue;
    for (const address of await namesIn(join(leases, group))) {
      if (kept.some((lease) => groupOf(lease) === group && lease.address === address)) continue;
      await release(leases, join(leases, group, address), checkedInstance(instance));
    }
  }
}

function portTaken(lease: PortLease, holder: LeaseHolder): MicroVmError {
  return new MicroVmError(
    "port-taken",
    `port ${lease.port}/${lease.protocol} of ${lease.address} is the VM ${holder.vmName}'s (state directory ${holder.stateDirectory}); ` +
      "choose another hostPort, or remove that VM",
    { input: "portForwards" },
  );
}

function groupOf({ protocol, address, port }: PortLease): string {
  if (!isIPv4(address) || !Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new MicroVmError(
      "invalid-input",
      `expected an IPv4 address and a port from 1 to 65535, found ${shown(address)} and ${shown(port)}`,
      { input: "portForwards" },
    );
  }
  return `${protocol}-${port}`;
}

function isUniqueKind(group: string): boolean {
  return UNIQUE_KINDS.some((kind) => kind === group);
}
