/** Starting a VM whose boot files and disks are in place, up to the guest's proof. */

import { mkdir, rename } from "node:fs/promises";

import type { BootConfiguration } from "../../boot/boot.js";
import { claimOf } from "../../console/evidence.js";
import { MicroVmError, systemCodeOf } from "../../errors.js";
import { allOf } from "../../host/all-of.js";
import { growFileSystem } from "../../host/disk.js";
import { attachNetwork } from "../../host/network/index.js";
import { type VmPaths, vmPaths } from "../../host/paths.js";
import { assertPortFree } from "../../host/port.js";
import { isAlive } from "../../host/process.js";
import { type VmRecord, writeRecord } from "../../host/record.js";
import { removeSockets, socketPaths } from "../../host/runtime-directory.js";
import { type SpawnRequest, spawnDetached } from "../../host/spawn.js";
import { guestNetworkOf, probeRequestOf } from "../../preflight/export.js";
import { probeNfs } from "../../preflight/nfs/index.js";
import type { Work } from "../backend.js";
import { stopIfInterrupted } from "./interrupt.js";
import { bootError } from "./report.js";
import type { Restoration } from "./restore.js";
import { attachedSocketOf, connectFree, endGuest, runsOf } from "./runs.js";
import { makeSerialName, removeSerialName } from "./serial-name.js";
import type { Launch, Vmm, VmmControl, VmmProgram } from "./vmm.js";
import type { Prover } from "./watch.js";

/** Bound of the console log, in MiB: what a guest prints beyond it is dropped. */
export const CONSOLE_LOG_LIMIT_MIB = 64;
const SOCKET_SECONDS = 10;
const SOCKET_POLL_MILLISECONDS = 2;

/** Where the start happens. */
export interface StartPlace {
  readonly vmm: Vmm;
  readonly prove: Prover;
  /** Absent where the VMM is somebody else's, and runs. */
  readonly program?: VmmProgram;
  readonly stateDirectory: string;
  readonly work: Work;
  /** What the guest is made from, in place of a boot. */
  readonly restoration?: Restoration;
  /** Present and true at the first start, before which nothing of the VM's network can be there. */
  readonly isNew?: true;
}

/** Largest file that the VMM may write, in MiB: one limit of the system for all files of a process. */
export function fileSizeLimitMiB({
  statefulDiskMiB,
  link,
  memoryMiB,
  maxMemoryMiB = memoryMiB,
}: BootConfiguration): number {
  // Memory that another process shares is a file as well (memfd_create(2)).
  const sharedMiB = link.kind === "user" && link.passt !== undefined ? maxMemoryMiB : 0;
  return Math.max(CONSOLE_LOG_LIMIT_MIB, statefulDiskMiB, sharedMiB);
}

/**
 * Starts the VMM and lets the guest run; every step is recorded before the next.
 *
 * @param record Phase `prepared`, no VMM.
 * @returns The record, phase `ready`, with the running VMM, once the guest has proved its root.
 * @throws MicroVmError as the prover, `vmm-failed`, `port-taken`, `address-taken` or `host-unusable`; the VMM that was started has ended then.
 */
export async function startVm(place: StartPlace, record: VmRecord): Promise<VmRecord> {
  const { stateDirectory, program, work } = place;
  const paths = vmPaths(stateDirectory, record.vmName);
  // Another program may have taken a port while the VM was off, and a VMM's own words for it name no input.
  for (const { protocol, hostAddress, hostPort } of record.boot.portForwards) {
    await assertPortFree(protocol, hostAddress, hostPort);
  }
  await keepOldConsole(paths);
  await removeSockets(record.controlSocket);
  if (record.boot.statefulDiskMiB > 0) {
    await growFileSystem(paths.statefulDisk, work.notice);
  }
  const { restoration } = place;
  const restoredFrom = restoration?.snapshot.id;
  const accelerator = program?.accelerator ?? "kvm";
  let started: VmRecord = { ...record, accelerator, proved: false, restoredFrom, requested: undefined };
  try {
    stopIfInterrupted(work.signal);
    const { vmName, instance, boot } = record;
    const vcpus = restoration?.snapshot.queuePairs ?? boot.vcpus; // the tap is made for one queue each
    const plain = await prepareLaunch(place.vmm, started, paths);
    const isNew = restoration === undefined ? place.isNew : undefined; // of a restored guest's CID there is a lease
    const connect = async (): Promise<VmmControl> => {
      if (program === undefined) return await connectFree(place.vmm, started);
      const identity = await spawnDetached(spawnRequest(program, plain, paths));
      started = { ...started, vmm: identity, phase: "spawned" };
      await writeRecord(stateDirectory, started);
      return await connectWhenUp(place, started, paths);
    };
    // Each takes about as long as the other, and the VMM opens the tap only when its guest is to run.
    const [attached, connected] = await Promise.allSettled([
      attachNetwork({ stateDirectory, vmName, instance, boot: { ...boot, vcpus }, isNew }),
      connect(),
    ]);
    if (connected.status === "rejected")
      throw attached.status === "rejected" ? attached.reason : connected.reason;
    const control = connected.value;
    try {
      if (attached.status === "rejected") throw attached.reason;
      const launch: Launch = { ...plain, network: attached.value };
      stopIfInterrupted(work.signal);
      started = { ...started, phase: "started" };
      await allOf([
        writeRecord(stateDirectory, started),
        ...(restoration === undefined && control.prepare !== undefined
          ? [control.prepare(launch, work)]
          : []),
      ]);
      if (restoration === undefined) await control.boot(launch, work);
      else await restoration.letRun(launch, control, work);
    } finally {
      control.close();
    }
    return await proveVm(place, started);
  } catch (error) {
    await endGuest(place.vmm, started);
    throw error;
  }
}

/**
 * Waits for the proof of a guest that was let run, and records it.
 *
 * @throws MicroVmError as the prover; the VMM is left as it is.
 */
export async function proveVm(place: StartPlace, record: VmRecord): Promise<VmRecord> {
  const { vmName, boot, settings } = record;
  const [runs] = await runsOf(place.vmm, record);
  const paths = vmPaths(place.stateDirectory, vmName);
  await removeSerialName(paths);
  const ended = {
    code: "vmm-failed",
    what: "the VM ended as soon as its guest was let run",
    withVmmLog: true,
  } as const;
  if (runs === undefined) throw await bootError(ended, paths);
  await place.prove({
    ...place.work,
    vmName,
    runs,
    vmmName: place.vmm.name,
    claim: claimOf(boot, settings.readiness),
    logs: paths,
    cmdline: boot.cmdline,
    guestNetwork: boot.root.type === "nfs" ? guestNetworkOf(boot.root.hostServer, boot.link) : undefined,
    timeoutSeconds: settings.readiness.timeoutSeconds,
  });
  const proved: VmRecord = {
    ...record,
    phase: "ready",
    proved: true,
    rootHandle: await rootHandleOf(record),
  };
  await writeRecord(place.stateDirectory, proved);
  stopIfInterrupted(place.work.signal);
  if (await runs.isUp()) return proved;
  throw await bootError(
    { code: "vmm-failed", what: "the VM ended right after the guest had proved its root", withVmmLog: true },
    paths,
  );
}

/** How long an NFS server that has just served a guest may take to tell the handle of the root. */
const HANDLE_LIMITS = { stepMs: 1000, totalMs: 2000 };

/**
 * The file handle of a guest's NFS root, by which it can be told later whether that root is still there. A restored guest has that of its
 * past, which need not be the one of today; a server that does not tell this host is not one that has failed the guest.
 */
async function rootHandleOf({ boot, restoredFrom }: VmRecord): Promise<string | undefined> {
  const { root, cmdline } = boot;
  if (root.type !== "nfs" || restoredFrom !== undefined) return undefined;
  const guestNetwork = guestNetworkOf(root.hostServer, boot.link);
  const request = probeRequestOf({ ...root, guestNetwork }, cmdline.split(" "));
  const finding = await probeNfs({ ...request, limits: HANDLE_LIMITS });
  return finding.kind === "ok" ? finding.rootFileHandle : undefined;
}

/** What the VMM is told, but for its network, with the places made that it is to write to. */
async function prepareLaunch(vmm: Vmm, record: VmRecord, paths: VmPaths): Promise<Launch> {
  const { vmName, instance, boot, settings, controlSocket } = record;
  const isAttached = attachedSocketOf(settings) !== undefined;
  const { vsock, vsockDirectory } = socketPaths(controlSocket);
  if (boot.link.kind === "tap" || boot.link.passt !== undefined)
    await mkdir(vsockDirectory, { recursive: true, mode: 0o700 });
  if (vmm.snapshots !== undefined) await mkdir(paths.snapshots, { recursive: true, mode: 0o700 });
  if (vmm.restartsGuest) await makeSerialName(paths, isAttached || isDirect(boot));
  const plain = isDirect(boot) ? paths.consoleLog : "/dev/stdout";
  return {
    vmName,
    instance,
    boot,
    settings,
    paths: {
      directory: paths.directory,
      kernel: paths.kernel,
      initramfs: boot.initramfs === undefined ? undefined : paths.initramfs,
      consoleLog: vmm.restartsGuest ? paths.serialName : plain,
      controlSocket,
      vsock,
      events: paths.vmmEvents,
      snapshots: paths.snapshots,
    },
    isAttached,
  };
}

/**
 * Whether the console goes straight to its file, which loses nothing. Only beside a disk image (or shared memory) for which the process
 * must be allowed larger files, it goes through a program that keeps the bound.
 */
function isDirect(boot: BootConfiguration): boolean {
  return fileSizeLimitMiB(boot) === CONSOLE_LOG_LIMIT_MIB;
}

function spawnRequest(program: VmmProgram, launch: Launch, paths: VmPaths): SpawnRequest {
  const { boot } = launch;
  const { consoleLog, controlSocket } = launch.paths;
  const pipe = consoleLog === paths.serialName ? { pipe: paths.serialName } : {};
  return {
    file: program.file,
    args: program.argumentsFor(launch),
    environment: program.environmentFor?.(launch),
    log: paths.vmmLog,
    makes: controlSocket,
    fileSizeLimitMiB: fileSizeLimitMiB(boot),
    ...(isDirect(boot)
      ? {}
      : { console: { file: paths.consoleLog, limitMiB: CONSOLE_LOG_LIMIT_MIB, ...pipe } }),
  };
}

/** The last start's console is kept beside the new one, which begins empty: nothing old may be taken for proof. */
async function keepOldConsole({ consoleLog }: VmPaths): Promise<void> {
  try {
    await rename(consoleLog, `${consoleLog}.1`);
  } catch (error) {
    if (systemCodeOf(error) !== "ENOENT") throw error; // the first start has none
  }
}

/** Connects as soon as the VMM has made its socket. */
async function connectWhenUp(place: StartPlace, record: VmRecord, paths: VmPaths): Promise<VmmControl> {
  const deadline = performance.now() + SOCKET_SECONDS * 1000;
  for (;;) {
    try {
      return await place.vmm.connect(record.controlSocket);
    } catch (error) {
      const code = error instanceof MicroVmError ? systemCodeOf(error.cause) : undefined;
      const isNotYet = code === "ENOENT" || code === "ECONNREFUSED";
      if (record.vmm === undefined || !isAlive(record.vmm)) {
        const what = `${place.vmm.name} ended at its start`;
        throw await bootError({ code: "vmm-failed", what, withVmmLog: true }, paths);
      }
      if (!isNotYet || performance.now() >= deadline) throw error;
    }
    stopIfInterrupted(place.work.signal);
    await new Promise((resolve) => setTimeout(resolve, SOCKET_POLL_MILLISECONDS));
  }
}
