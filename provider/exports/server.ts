/** The process that serves an export: started so that it outlives us, found again by what we gave it, ended. */

import { readFile, rename, stat } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";

import { MicroVmError } from "../errors.js";
import {
  endProcess,
  identify,
  isAlive,
  type ProcessIdentity,
  processIds,
  readOfProcess,
} from "../host/process.js";
import { spawnDetached } from "../host/spawn.js";
import { isAbsent, storageError } from "../host/storage.js";
import { describe, type NfsFinding, probeNfs } from "../preflight/nfs/index.js";
import { agentFsServer, assertBase, type DatabaseKey, type ServerProgram } from "./agentfs.js";
import { ganeshaServer, isComplaint, isUnexported, writeConfiguration } from "./ganesha.js";
import { exportPaths } from "./paths.js";
import { assertPortsFree } from "./ports.js";
import { type ExportRecord, inodeOf, writeExport } from "./record.js";

const READY_SECONDS = 30;
const POLL_MILLISECONDS = 30;
/** How long SIGTERM may take. */
const GRACE_SECONDS = 10;
/** Largest file that a server writes for its guests, in MiB: none is larger on ext4. */
const FILE_SIZE_LIMIT_MIB = 16 * 1024 * 1024;
const SHOWN_LINES = 12;

/** By this variable a server is found again whose starter was killed before it could record it. */
const MARK = "PULUMI_MICROVM_EXPORT";

/** What a start is given beside the record. */
export interface StartOptions {
  readonly signal: AbortSignal;
  readonly key?: DatabaseKey;
}

/**
 * Starts the server of a claimed export and waits until it answers; each step is recorded before the next.
 *
 * @returns The record, phase `ready`, with the process.
 * @throws MicroVmError `nfs-server-failed` with the server's own words, `port-taken`, `host-unusable`, `interrupted`; the process that
 * was started may run then, and is the caller's to end.
 */
export async function startServer(
  stateDirectory: string,
  record: ExportRecord,
  { signal, key }: StartOptions,
): Promise<ExportRecord> {
  const { serving, place, name, instance } = record;
  const paths = exportPaths(stateDirectory, name);
  await assertPortsFree(place);
  await keepOldLog(paths.log);
  let program: ServerProgram;
  if (serving.type === "agentfs") {
    program = agentFsServer(serving, place, key);
  } else {
    await writeConfiguration(paths, serving, place);
    program = ganeshaServer(paths);
  }
  stopIfAborted(signal);
  const inode = await inodeOf(serving);
  const started: ExportRecord = { ...record, phase: "started", server: undefined, inode };
  await writeExport(stateDirectory, started);
  let server: ProcessIdentity;
  try {
    server = await spawnDetached({
      ...program,
      environment: { ...program.environment, [MARK]: instance },
      log: paths.log,
      fileSizeLimitMiB: FILE_SIZE_LIMIT_MIB,
    });
  } catch (error) {
    if (error instanceof MicroVmError && error.code === "vmm-failed") {
      throw new MicroVmError("nfs-server-failed", await withLog(error.text, paths.log), { cause: error });
    }
    throw error;
  }
  const running: ExportRecord = { ...started, server };
  await writeExport(stateDirectory, running);
  await untilReady(running, server, paths.log, signal);
  if (serving.type === "agentfs") await assertBase(serving, await textOf(paths.log));
  const ready: ExportRecord = { ...running, phase: "ready" };
  await writeExport(stateDirectory, ready);
  return ready;
}

/** The last start's log is kept beside the new one. */
async function keepOldLog(log: string): Promise<void> {
  try {
    await rename(log, `${log}.1`);
  } catch (error) {
    if (!isAbsent(error)) throw storageError(error, `move ${log}`); // the first start has none
  }
}

/** Whether a server with this finding serves the export: what is in it is the guest's matter. */
function isServed({ kind }: NfsFinding): boolean {
  return kind === "ok" || kind.startsWith("init-") || kind === "interpreter-missing";
}

async function untilReady(
  { place, serving }: ExportRecord,
  server: ProcessIdentity,
  log: string,
  signal: AbortSignal,
): Promise<void> {
  const { address, port, mountPort, path } = place;
  const target = { server: address === "0.0.0.0" ? "127.0.0.1" : address, port, mountPort, path };
  const deadline = performance.now() + READY_SECONDS * 1000;
  for (;;) {
    const finding = await probeNfs({ ...target, limits: { stepMs: 1000, totalMs: 3000 } });
    stopIfAborted(signal);
    const isUp = isAlive(server);
    if (isUp && isServed(finding)) return;
    const gaveUp = serving.type === "ganesha" && isUnexported(await textOf(log));
    if (!isUp || gaveUp) {
      const what = isUp
        ? "the NFS server cannot export the directory (a local one takes the package nfs-ganesha-vfs)"
        : "the NFS server ended at its start";
      throw new MicroVmError("nfs-server-failed", await withLog(what, log));
    }
    if (performance.now() >= deadline) {
      const what = `the NFS server did not answer within ${READY_SECONDS} s: ${describe(finding, target).text}`;
      throw new MicroVmError("nfs-server-failed", await withLog(what, log));
    }
    await delay(POLL_MILLISECONDS);
  }
}

/** Processes that serve an export: the recorded one, else what was started and not recorded before a crash. */
export function serversOf({ server, instance, phase }: ExportRecord): ProcessIdentity[] {
  if (server !== undefined && isAlive(server)) return [server];
  // Once it was recorded, there is no other.
  return server !== undefined || phase === "claimed" ? [] : findByMark(instance);
}

/** Ends the server of an export, recorded or not. Idempotent. */
export async function endServers(record: ExportRecord): Promise<void> {
  const { server, instance } = record;
  const found = [...findByMark(instance), ...(server !== undefined && isAlive(server) ? [server] : [])];
  for (const identity of found) await endProcess(identity, GRACE_SECONDS);
}

/** This user's processes whose environment names the instance (proc_pid_environ(5)). */
function findByMark(instance: string): ProcessIdentity[] {
  const mark = `${MARK}=${instance}`;
  return processIds().flatMap((pid) => {
    if (pid === process.pid) return [];
    if (readOfProcess(pid, "environ")?.split("\0").includes(mark) !== true) return [];
    const identity = identify(pid);
    return identity === undefined ? [] : [identity];
  });
}

function stopIfAborted(signal: AbortSignal): void {
  if (!signal.aborted) return;
  throw signal.reason instanceof MicroVmError
    ? signal.reason
    : new MicroVmError("interrupted", "this was interrupted, and undone");
}

async function withLog(what: string, log: string): Promise<string> {
  const lines = (await textOf(log)).trimEnd().split("\n");
  const told = lines.filter(isComplaint).slice(-SHOWN_LINES);
  return told.length === 0 || what.includes(told.at(-1) ?? "")
    ? what
    : `${what}. What it printed:\n${told.map((line) => `  | ${line}`).join("\n")}`;
}

const MOST_LOG_BYTES = 1_048_576;

async function textOf(path: string): Promise<string> {
  try {
    if ((await stat(path)).size > MOST_LOG_BYTES) return "";
    return await readFile(path, "utf8");
  } catch (error) {
    if (isAbsent(error)) return "";
    throw storageError(error, `read ${path}`);
  }
}
