/**
 * Host-wide leases: what two VMs of this user cannot both have, whatever state directories they are in.
 *
 * A lease is a folder, `RUNTIME/leases/tcp-8080/127.0.0.1/` or `RUNTIME/leases/guest-address/10.20.7.9/`, with one file in it.
 * Everything rests on rename(2) of a prepared folder, which succeeds only where nothing or an empty folder is: a lease of one
 * address is renamed to that path; one of all addresses is renamed, as `tcp-8080/` with `0.0.0.0/` inside, to where no other may be.
 */

import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, rmdir, stat } from "node:fs/promises";
import { isIPv4 } from "node:net";
import { join } from "node:path";

import { MicroVmError, shown, systemCodeOf } from "../errors.js";
import { instanceIn } from "./confirm.js";
import { checkedInstance, vmPaths } from "./paths.js";
import { assertPortFree } from "./port.js";
import { runtimeDirectory } from "./runtime-directory.js";
import { isAbsent, isOccupied, storageError, writeNewFile } from "./storage.js";

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

/** Who has a lease. It holds for as long as the record of that instance exists. */
export interface LeaseHolder {
  readonly stateDirectory: string;
  readonly vmName: string;
  readonly instance: string;
}

/** What the file of a lease says. */
interface HeldLease extends LeaseHolder {
  /** Of this one taking: two leases of one instance on one port, one after the other, differ. */
  readonly id: string;
}

const UNIQUE_KINDS: readonly UniqueLease["kind"][] = ["guest-address", "tap", "vsock-cid"];

const EVERY_ADDRESS = "0.0.0.0";

/** File in a lease's folder. */
const HOLDER = "holder.json";

/** Folder of leases that were given back or taken over. */
const RETIRED = ".retired";

/** Each further try means that another process took or gave back the same port in between. */
const MOST_TRIES = 50;

/** Nobody is in the middle of taking or giving back a lease for that long. */
const LEFTOVER_MILLISECONDS = 3_600_000;

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
    if (lease.address !== EVERY_ADDRESS) {
      const first = await evict(leases, join(group, EVERY_ADDRESS), held);
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

/** Renames the lease to its place. Returns false where another is (or, for all addresses, any other). */
async function place(leases: string, group: string, address: string, held: HeldLease): Promise<boolean> {
  const prepared = join(leases, `.new-${held.id}`);
  try {
    await mkdir(join(prepared, address), { recursive: true, mode: 0o700 });
    await writeNewFile(join(prepared, address, HOLDER), JSON.stringify(held));
    if (address === EVERY_ADDRESS) {
      await rename(prepared, group);
    } else {
      await mkdir(group, { recursive: true, mode: 0o700 });
      await rename(join(prepared, address), join(group, address));
    }
    return true;
  } catch (error) {
    // ENOENT: the group was given back as a whole between mkdir and rename.
    if (isOccupied(error) || isAbsent(error)) return false;
    throw storageError(error, `make a lease in ${leases}`);
  } finally {
    await rm(prepared, { recursive: true, force: true });
  }
}

/** Puts the lease in its place. @returns `had`: it was the instance's before; a lease: it is that VM's. */
async function take(
  leases: string,
  group: string,
  address: string,
  held: HeldLease,
): Promise<"taken" | "had" | HeldLease> {
  await sweep(leases);
  let tries = 0;
  while (!(await place(leases, group, address, held))) {
    const inTheWay = address === EVERY_ADDRESS ? await namesIn(group) : [address];
    for (const other of inTheWay) {
      const found = await evict(leases, join(group, other), held);
      if (found === "gone") continue;
      if (found !== "own") return found;
      if (other === address) return "had";
      break;
    }
    if (++tries === MOST_TRIES) throw unusable(group);
  }
  return "taken";
}

/** Removes a lease whose record is gone. @returns `own`: it is the instance's, and stays; a lease: it is another VM's, and stays. */
async function evict(leases: string, path: string, held: HeldLease): Promise<"gone" | "own" | HeldLease> {
  const other = await holderOf(path);
  if (other === undefined) return "gone";
  if (other.instance === held.instance) return "own";
  if (await isHeld(other)) return other;
  await retire(leases, path, other.id);
  return "gone";
}

function portTaken(lease: PortLease, holder: LeaseHolder): MicroVmError {
  return new MicroVmError(
    "port-taken",
    `port ${lease.port}/${lease.protocol} of ${lease.address} is the VM ${holder.vmName}'s (state directory ${holder.stateDirectory}); ` +
      "choose another hostPort, or remove that VM",
    { input: "portForwards" },
  );
}

async function release(leases: string, path: string, instance: string): Promise<void> {
  const holder = await holderOf(path);
  if (holder?.instance === instance) await retire(leases, path, holder.id);
}

/**
 * Takes a lease away, in one step and only that very lease: its place in `.retired` is its own, so that a
 * second rename, which would hit whoever took the port since, fails.
 */
async function retire(leases: string, path: string, id: string): Promise<void> {
  try {
    await mkdir(join(leases, RETIRED), { recursive: true, mode: 0o700 });
    await rename(path, join(leases, RETIRED, id));
    await rmdir(join(path, ".."));
  } catch (error) {
    // Retired by another process; or the group still has leases (rmdir).
    if (!isOccupied(error) && !isAbsent(error)) throw storageError(error, `give back the lease ${path}`);
  }
}

/** Whether the record of the holder is there. What cannot be read counts as there. */
async function isHeld(holder: LeaseHolder): Promise<boolean> {
  try {
    const found = instanceIn(await readFile(vmPaths(holder.stateDirectory, holder.vmName).record, "utf8"));
    return found === undefined || found === holder.instance;
  } catch (error) {
    const code = systemCodeOf(error);
    if (code === "ENOENT" || code === "ENOTDIR") return false;
    if (code !== undefined) return true;
    throw error;
  }
}

async function holderOf(path: string): Promise<HeldLease | undefined> {
  try {
    const content: unknown = JSON.parse(await readFile(join(path, HOLDER), "utf8"));
    if (isHeldLease(content)) return content;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    if (!(error instanceof SyntaxError)) throw storageError(error, `read the lease ${path}`);
  }
  throw unusable(path);
}

function isHeldLease(content: unknown): content is HeldLease {
  if (typeof content !== "object" || content === null) return false;
  const fields = content as Record<string, unknown>;
  return ["id", "stateDirectory", "vmName", "instance"].every((name) => typeof fields[name] === "string");
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

async function leasesDirectory(env: NodeJS.ProcessEnv): Promise<string> {
  const path = join(await runtimeDirectory(env), "leases");
  await mkdir(path, { recursive: true, mode: 0o700 });
  return path;
}

/** Removes what killed processes left, and what was retired long ago. */
async function sweep(leases: string): Promise<void> {
  const retired = (await namesIn(join(leases, RETIRED))).map((name) => join(RETIRED, name));
  const prepared = (await namesIn(leases)).filter((name) => name.startsWith(".new-"));
  for (const name of [...retired, ...prepared]) {
    const path = join(leases, name);
    const changed = await stat(path).then(
      (found) => found.ctimeMs,
      (error: unknown) => {
        if (isAbsent(error)) return undefined;
        throw error;
      },
    );
    if (changed !== undefined && Date.now() - changed > LEFTOVER_MILLISECONDS) {
      await rm(path, { recursive: true, force: true });
    }
  }
}

async function namesIn(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (isAbsent(error)) return [];
    throw error;
  }
}

function unusable(path: string): MicroVmError {
  return new MicroVmError(
    "host-unusable",
    `the lease ${path} is torn; remove that folder if no VM of yours has it`,
  );
}

function newLease(holder: LeaseHolder): HeldLease {
  const { stateDirectory, vmName, instance } = holder;
  return { stateDirectory, vmName, instance: checkedInstance(instance), id: newId() };
}

function isUniqueKind(group: string): boolean {
  return UNIQUE_KINDS.some((kind) => kind === group);
}

function newId(): string {
  return randomBytes(8).toString("hex");
}
