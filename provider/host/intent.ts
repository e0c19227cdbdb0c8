/**
 * What this host was about to ask a server for: a note from before a VM is asked for until the engine's state holds it. A server
 * forgets who asked; the next create finds here that a VM which nobody knows was made by an earlier one that was killed.
 *
 * The Pulumi program's own process imports this: it loads nothing but Node's modules.
 */

import { createHash, randomBytes } from "node:crypto";
import { link, mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import type { Owner } from "../backends/backend.js";
import { MicroVmError, systemCodeOf } from "../errors.js";
import { isAlive, type ProcessIdentity, thisProcess } from "./process.js";
import { isAbsent, replaceFile, storageError, writeNewFile } from "./storage.js";

/** One VM that is asked for. */
export interface Intent {
  /** The server, as `backend.url` names it. */
  readonly url: string;
  readonly vmName: string;
  readonly instance: string;
  readonly owner: Owner;
  /** The process that asks. */
  readonly creator: ProcessIdentity;
  /** Present and true once the server has made it; the engine may not know yet. */
  readonly made?: true;
}

/** Folder of the notes in a state directory; no VM's name begins with a dot. */
const FOLDER = ".asked";
const POLL_MILLISECONDS = 50;

/**
 * Notes that a VM is asked for. A note of a process that lives is waited for.
 *
 * @param waitSeconds How long a live one may take, in seconds; 15 by default.
 * @returns The note of a process that was killed, if there was one.
 * @throws MicroVmError `name-taken` when one has made such a VM, `create-in-progress` when a live one goes on for too long, `interrupted`, `state-directory`.
 */
export async function announce(
  stateDirectory: string,
  intent: Omit<Intent, "creator" | "made">,
  signal: AbortSignal,
  waitSeconds = 15,
): Promise<Intent | undefined> {
  const { url, vmName } = intent;
  const file = intentFile(stateDirectory, url, vmName);
  const aside = `${file}.${randomBytes(6).toString("hex")}.tmp`;
  const deadline = performance.now() + waitSeconds * 1000;
  let lost: Intent | undefined;
  try {
    await mkdir(join(stateDirectory, FOLDER), { recursive: true, mode: 0o700 });
    await writeNewFile(aside, JSON.stringify({ ...intent, creator: thisProcess() } satisfies Intent));
    while (!(await linked(aside, file))) {
      const other = await readIntent(stateDirectory, url, vmName);
      if (other !== undefined && isAlive(other.creator)) {
        if (other.made === true) throw nameTaken(other);
        if (performance.now() >= deadline) throw inProgress(other);
        await delay(POLL_MILLISECONDS);
        signal.throwIfAborted();
        continue;
      }
      lost = other ?? lost;
      await rm(file, { force: true });
    }
    return lost;
  } catch (error) {
    throw storageError(error, `write ${file}`);
  } finally {
    await rm(aside, { force: true });
  }
}

/** Notes that the server has made the VM, under the instance that it may have named. */
export async function noteMade(
  stateDirectory: string,
  intent: Omit<Intent, "creator" | "made">,
): Promise<void> {
  const file = intentFile(stateDirectory, intent.url, intent.vmName);
  try {
    await replaceFile(
      file,
      JSON.stringify({ ...intent, creator: thisProcess(), made: true } satisfies Intent),
    );
  } catch (error) {
    throw storageError(error, `write ${file}`);
  }
}

/** The note of a VM; undefined when there is none. */
export async function readIntent(
  stateDirectory: string,
  url: string,
  vmName: string,
): Promise<Intent | undefined> {
  const file = intentFile(stateDirectory, url, vmName);
  try {
    return JSON.parse(await readFile(file, "utf8")) as Intent;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    // Notes are put in place whole: one that does not parse is nobody's, and proves nothing.
    if (error instanceof SyntaxError) return undefined;
    throw storageError(error, `read ${file}`);
  }
}

/**
 * Removes the note of an instance: the engine's state holds it, or there is nothing to hold. Idempotent; no effect on another
 * instance's.
 */
export async function settle(
  stateDirectory: string,
  url: string,
  vmName: string,
  instance: string,
): Promise<void> {
  const file = intentFile(stateDirectory, url, vmName);
  if ((await readIntent(stateDirectory, url, vmName))?.instance !== instance) return;
  try {
    await rm(file, { force: true });
  } catch (error) {
    throw storageError(error, `remove ${file}`);
  }
}

/** link(2) fails when the name is there. */
async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (systemCodeOf(error) === "EEXIST") return false;
    throw error;
  }
}

function intentFile(stateDirectory: string, url: string, vmName: string): string {
  const digest = createHash("sha256").update(url).digest("hex").slice(0, 16);
  return join(stateDirectory, FOLDER, `${vmName}.${digest}.json`);
}

function nameTaken({ creator, vmName, url }: Intent): MicroVmError {
  return new MicroVmError(
    "name-taken",
    `process ${creator.pid} has just made the VM ${vmName} at ${url}, for this or another resource; choose another vmName`,
    { input: "vmName" },
  );
}

function inProgress({ creator, vmName, url }: Intent): MicroVmError {
  return new MicroVmError(
    "create-in-progress",
    `process ${creator.pid} asks ${url} for the VM ${vmName} at this moment; wait for that \`pulumi up\` to end, then run again`,
    { input: "vmName" },
  );
}
