/** Making a guest from a snapshot, in place of a boot. */

import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { hasGuestEnded } from "../../console/ended.js";
import { lastConsoleLines } from "../../console/follow.js";
import { MicroVmError } from "../../errors.js";
import { copySparse } from "../../host/disk-copy.js";
import { type LeaseHolder, takeUnique } from "../../host/lease.js";
import { endConnections } from "../../host/network/connections.js";
import { noticeText } from "../../notices.js";
import { type SnapshotPaths, snapshotPaths } from "../../host/paths.js";
import type { SnapshotRecord } from "../../host/snapshots.js";
import { storageError } from "../../host/storage.js";
import { restoreFailures } from "../../preflight/snapshot.js";
import type { CreateRequest, Work } from "../backend.js";
import { interrupted } from "./interrupt.js";
import { bootError } from "./report.js";
import { vmmsOfInstance } from "./runs.js";
import type { Launch, Vmm, VmmControl, VmmSnapshots } from "./vmm.js";
import type { BootWatch } from "./watch.js";

/** How long a restored guest must live and stay free of a panic, in milliseconds. */
const CALM_MILLISECONDS = 2000;
const POLL_MILLISECONDS = 50;
/** How much of the console is searched for `readiness.console`. */
const READ_LINES = 1000;

/** A guest that is to be made from a snapshot. */
export class Restoration {
  private constructor(
    readonly snapshot: SnapshotRecord,
    readonly snapshots: VmmSnapshots,
    readonly paths: SnapshotPaths,
    readonly isPaused: boolean,
  ) {}

  /**
   * What a create asks for; undefined when it asks for a boot.
   *
   * @throws MicroVmError `not-supported`, `record-unreadable`, or as {@link restoreFailures} finds it, when it cannot be.
   */
  static async of({ name, snapshots }: Vmm, request: CreateRequest): Promise<Restoration | undefined> {
    const { snapshotId, stateDirectory, vmName, boot, settings, owner } = request;
    if (snapshotId === undefined) return undefined;
    if (snapshots === undefined) {
      throw new MicroVmError("not-supported", `${name} restores no snapshots`, { input: "snapshotId" });
    }
    const { powerState } = settings;
    const wanted = { snapshotId, stateDirectory, vmName, boot, powerState, urn: owner.urn };
    const { failures, snapshot } = await restoreFailures(wanted);
    const [first] = failures;
    if (first !== undefined) {
      throw new MicroVmError(first.code ?? "invalid-input", first.text, { input: first.input });
    }
    if (snapshot === undefined) throw new Error("a snapshot is there, or it is a failure");
    assertOriginalEnded(snapshot);
    return new Restoration(
      snapshot,
      snapshots,
      snapshotPaths(stateDirectory, snapshotId),
      powerState === "paused",
    );
  }

  /** Takes for the VM what its guest believes to be its own. */
  async takeLeases(holder: LeaseHolder): Promise<void> {
    const { vsockCid } = this.snapshot;
    const other = await takeUnique({ kind: "vsock-cid", value: String(vsockCid) }, holder);
    if (other === undefined) return;
    throw new MicroVmError(
      "address-taken",
      `the vsock context id ${vsockCid}, which the guest of the snapshot has, is the VM ${other.vmName}'s by now (state directory ${other.stateDirectory}); remove that VM first`,
      { input: "snapshotId" },
    );
  }

  /** @param target Absolute path at which the VM's stateful disk is to be. */
  async copyDisk(target: string, signal: AbortSignal): Promise<void> {
    await copySparse(this.paths.statefulDisk, target, signal);
  }

  /** Makes the guest and lets it run, unless it is to be paused. */
  async letRun(launch: Launch, control: VmmControl, { notice }: Work): Promise<void> {
    const scratch = join(launch.paths.snapshots, "restored");
    try {
      await rm(scratch, { recursive: true, force: true });
      await mkdir(scratch, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw storageError(error, `make ${scratch}`);
    }
    try {
      await this.snapshots.restore(launch, this.paths.vmm, scratch);
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
    const { link } = launch.boot;
    if (link.kind === "tap" && (await endConnections(link.guestAddress)) > 0) {
      notice(noticeText("connections-left", { vm: launch.vmName, address: link.guestAddress }));
    }
    if (!this.isPaused) await control.resume();
  }

  /**
   * Waits, in place of a proof: a restored guest prints nothing by itself. Its root was proved before the snapshot; what is looked
   * at is that it lives, that its kernel does not panic, and that `readiness.console` matches, where there is one.
   *
   * @throws MicroVmError `boot-failed`, `boot-timeout`, `vmm-failed` or `interrupted`
   */
  async settle({ claim, runs, logs, timeoutSeconds, signal }: BootWatch): Promise<void> {
    const begun = performance.now();
    for (;;) {
      const waited = performance.now() - begun;
      if (signal.aborted) throw interrupted();
      if (!(await runs.isUp())) {
        const what =
          "the restored VM ended: its guest powered off or reset itself, or its hypervisor was killed";
        throw await bootError({ code: "vmm-failed", what, withVmmLog: true }, logs);
      }
      if (await hasGuestEnded(logs.consoleLog)) {
        throw await bootError({ code: "boot-failed", what: "the restored guest has ended" }, logs);
      }
      const isCalm = this.isPaused || waited >= CALM_MILLISECONDS;
      if (isCalm && (this.isPaused || (await isReady(claim.readiness, logs.consoleLog)))) return;
      if (waited >= timeoutSeconds * 1000) {
        const what = `the restored guest printed no line that matches readiness.console within ${timeoutSeconds} s`;
        throw await bootError({ code: "boot-timeout", what, input: "readiness.console" }, logs);
      }
      await delay(POLL_MILLISECONDS);
    }
  }
}

/** Two guests on one root, one of them from the past of the other, destroy it. */
function assertOriginalEnded({ instance, vmName }: SnapshotRecord): void {
  const [original] = vmmsOfInstance(instance);
  if (original === undefined) return;
  throw new MicroVmError(
    "name-taken",
    `process ${original.pid} still runs ${vmName}, which the snapshot was taken of; end that VM first: a restored guest writes over what it writes`,
    { input: "snapshotId" },
  );
}

async function isReady(pattern: RegExp | undefined, consoleLog: string): Promise<boolean> {
  if (pattern === undefined) return true;
  return (await lastConsoleLines(consoleLog, READ_LINES)).some((line) => pattern.test(line));
}
