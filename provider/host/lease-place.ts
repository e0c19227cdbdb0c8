/**
 * The machinery of leases: a folder with one file in it, `GROUP/MEMBER/holder.json`, which is one VM's for as long as its record
 * exists.
 *
 * Everything rests on rename(2) of a prepared folder, which succeeds only where nothing or an empty folder is: a lease is renamed to its
 * place; one of all members is renamed as a whole group, with {@link EVERY} inside, to where no other may be.
 */

import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, rmdir, stat } from "node:fs/promises";
import { join } from "node:path";

import { MicroVmError, systemCodeOf } from "../errors.js";
import { instanceIn } from "./confirm.js";
import { checkedInstance, vmPaths } from "./paths.js";
import { runtimeDirectory } from "./runtime-directory.js";
import { isAbsent, isOccupied, leadsNowhere, storageError, writeNewFile } from "./storage.js";

/** Who has a lease. It holds for as long as the record of that instance exists. */
export interface LeaseHolder {
  readonly stateDirectory: string;
  readonly vmName: string;
  readonly instance: string;
}

/** What the file of a lease says. */
export interface HeldLease extends LeaseHolder {
  /** Of this one taking: two leases of one instance on one port, one after the other, differ. */
  readonly id: string;
}

/** The member that stands for all of its group. */
export const EVERY = "0.0.0.0";

/** File in a lease's folder. */
const HOLDER = "holder.json";

/** Folder of leases that were given back or taken over. */
const RETIRED = ".retired";

/** Each further try means that another process took or gave back the same port in between. */
const MOST_TRIES = 50;

/** Nobody is in the middle of taking or giving back a lease for that long. */
const LEFTOVER_MILLISECONDS = 3_600_000;

/** The folder of all leases; made when it is not there. */
export async function leasesDirectory(env: NodeJS.ProcessEnv): Promise<string> {
  const path = join(await runtimeDirectory(env), "leases");
  await mkdir(path, { recursive: true, mode: 0o700 });
  return path;
}

/** When the leases of a folder were last swept by this process: hundreds of VMs take theirs in a row. */
const sweptAt = new Map<string, number>();
const SWEEP_MILLISECONDS = 60_000;

/** Removes what killed processes left, and what was retired long ago; now and then. */
async function sweep(leases: string): Promise<void> {
  const now = performance.now();
  if (now - (sweptAt.get(leases) ?? -Infinity) < SWEEP_MILLISECONDS) return;
  sweptAt.set(leases, now);
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

/** Names in a folder; none when it is not there. */
export async function namesIn(path: string): Promise<string[]> {
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

/** What the file of a new lease will say. */
export function newLease(holder: LeaseHolder): HeldLease {
  const { stateDirectory, vmName, instance } = holder;
  return { stateDirectory, vmName, instance: checkedInstance(instance), id: newId() };
}

/** Renames the lease to its place. Returns false where another is (or, for all addresses, any other). */
async function place(leases: string, group: string, member: string, held: HeldLease): Promise<boolean> {
  const prepared = join(leases, `.new-${held.id}`);
  try {
    await mkdir(join(prepared, member), { recursive: true, mode: 0o700 });
    await writeNewFile(join(prepared, member, HOLDER), JSON.stringify(held));
    if (member === EVERY) {
      await rename(prepared, group);
    } else {
      await mkdir(group, { recursive: true, mode: 0o700 });
      await rename(join(prepared, member), join(group, member));
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
export async function take(
  leases: string,
  group: string,
  member: string,
  held: HeldLease,
): Promise<"taken" | "had" | HeldLease> {
  await sweep(leases);
  let tries = 0;
  while (!(await place(leases, group, member, held))) {
    const inTheWay = member === EVERY ? await namesIn(group) : [member];
    for (const other of inTheWay) {
      const found = await evict(leases, join(group, other), held);
      if (found === "gone") continue;
      if (found !== "own") return found;
      if (other === member) return "had";
      break;
    }
    if (++tries === MOST_TRIES) throw unusable(group);
  }
  return "taken";
}

/** Removes a lease whose record is gone. @returns `own`: it is the instance's, and stays; a lease: it is another VM's, and stays. */
export async function evict(
  leases: string,
  path: string,
  held: HeldLease,
): Promise<"gone" | "own" | HeldLease> {
  const other = await holderOf(path);
  if (other === undefined) return "gone";
  if (other.instance === held.instance) return "own";
  if (await isHeld(other)) return other;
  await retire(leases, path, other.id);
  return "gone";
}

/** Gives a lease back, if it is the instance's. */
export async function release(leases: string, path: string, instance: string): Promise<void> {
  const holder = await holderOf(path);
  if (holder?.instance === instance) await retire(leases, path, holder.id);
}

/**
 * Takes a lease away, in one step and only that very lease: its place in `.retired` is its own, so that a
 * second rename, which would hit whoever took the port since, fails.
 */
export async function retire(leases: string, path: string, id: string): Promise<void> {
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
    if (leadsNowhere(error)) return false;
    if (systemCodeOf(error) !== undefined) return true;
    throw error;
  }
}

/** Who has the lease at a path; nobody where there is none. */
export async function holderOf(path: string): Promise<HeldLease | undefined> {
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

function newId(): string {
  return randomBytes(8).toString("hex");
}
