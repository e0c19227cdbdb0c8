/** Whether a snapshot can be restored as a VM: a restored guest is the one that was saved, with its name, address and devices. */

import { isDeepStrictEqual } from "node:util";

import type { PowerState } from "../backends/backend.js";
import type { BootConfiguration } from "../boot/boot.js";
import { MicroVmError, shown } from "../errors.js";
import { imageStamp } from "../host/disk-copy.js";
import { isSnapshotId } from "../host/paths.js";
import { readRecord } from "../host/record.js";
import { observeSnapshot, readSnapshot, type SnapshotRecord } from "../host/snapshots.js";
import type { Failure } from "../spec/validate.js";

/** The VM that is to be restored. */
export interface RestoreRequest {
  readonly snapshotId: string;
  /** Absolute path. */
  readonly stateDirectory: string;
  readonly vmName: string;
  readonly boot: BootConfiguration;
  readonly powerState: PowerState;
  /** URN of its resource. */
  readonly urn: string;
}

/** What was found. */
export interface RestoreFindings {
  readonly failures: readonly Failure[];
  /** Present when there is one. */
  readonly snapshot?: SnapshotRecord;
}

/** Everything that keeps a snapshot from being restored as this VM. */
export async function restoreFailures(request: RestoreRequest): Promise<RestoreFindings> {
  const { snapshotId, stateDirectory } = request;
  if (!isSnapshotId(snapshotId)) {
    return refused(
      `expected the id of a MicroVmSnapshot, <vmName>-<16 hex digits>, got ${shown(snapshotId)}`,
    );
  }
  try {
    const snapshot = await readSnapshot(stateDirectory, snapshotId);
    if (snapshot === undefined) {
      return refused(
        `expected a snapshot on this host, found none ${shown(snapshotId)} in ${stateDirectory}; a snapshot is restored on the host on which it was taken`,
        "file-unusable",
      );
    }
    if ((await observeSnapshot(stateDirectory, snapshotId)) !== "there") {
      return refused(`a file of the snapshot ${snapshotId} is missing; take another`, "file-unusable");
    }
    const failures = [
      ...differences(request, snapshot),
      ...(await originalFailures(request, snapshot)),
      ...(await imageFailures(snapshot)),
    ];
    return { failures, snapshot };
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    return refused(error.text, error.code);
  }
}

function refused(text: string, code?: Failure["code"]): RestoreFindings {
  return { failures: [{ input: "snapshotId", text, ...(code === undefined ? {} : { code }) }] };
}

/** What of the inputs is not as the saved guest has it. */
function differences(request: RestoreRequest, snapshot: SnapshotRecord): Failure[] {
  const { boot, vmName, powerState } = request;
  const { boot: was } = snapshot;
  const failures: Failure[] = [];
  const hold = (input: string, now: unknown, then: unknown): void => {
    if (isDeepStrictEqual(now, then)) return;
    const text = `expected ${shown(then)} beside this snapshotId, as the guest of the snapshot has it, got ${shown(now)}`;
    failures.push({ input, text });
  };
  if (powerState === "stopped") {
    const text = 'expected "running" or "paused" beside snapshotId: a VM that is off starts from its kernel';
    failures.push({ input: "powerState", text: `${text}, got ${shown(powerState)}` });
  }
  hold("vmName", vmName, snapshot.vmName);
  hold("kernel", boot.kernel.sha256, was.kernel.sha256);
  if (boot.initramfs?.generated !== true || was.initramfs?.generated !== true) {
    hold("initramfs", boot.initramfs?.sha256, was.initramfs?.sha256);
  }
  hold("vcpus", boot.vcpus, was.vcpus);
  hold("memoryMiB", boot.memoryMiB, was.memoryMiB);
  hold("maxVcpus", boot.maxVcpus, was.maxVcpus);
  hold("maxMemoryMiB", boot.maxMemoryMiB, was.maxMemoryMiB);
  hold("statefulDiskMiB", boot.statefulDiskMiB, was.statefulDiskMiB);
  hold("ip", boot.link.guestAddress, was.link.guestAddress);
  hold("network", placeOf(boot), placeOf(was));
  // A VM that was renamed, moved or readdressed has told so above.
  if (failures.length === 0) hold("snapshotId", wordsBeside(boot, was), wordsBeside(was, boot));
  return failures;
}

function placeOf({ link }: BootConfiguration): string {
  return `${link.gatewayAddress}/${String(link.prefixLength)}`;
}

/** The words of a command line that another one has not. */
function wordsBeside({ cmdline }: BootConfiguration, other: BootConfiguration): string {
  const others = new Set(other.cmdline.split(" "));
  return cmdline
    .split(" ")
    .filter((word) => !others.has(word))
    .join(" ");
}

/** The VM that the snapshot was taken of, where it is another resource's: one that is replaced goes first. */
async function originalFailures(
  { stateDirectory, urn }: RestoreRequest,
  { vmName, instance }: SnapshotRecord,
): Promise<Failure[]> {
  const record = await readRecord(stateDirectory, vmName);
  if (record?.instance !== instance || record.owner.urn === urn) return [];
  return [
    {
      input: "snapshotId",
      code: "name-taken",
      text: `the VM ${vmName} that the snapshot was taken of is still there (${record.owner.urn}); delete it first: a restored guest writes over what it writes`,
    },
  ];
}

/** The guest may have any part of its root disk in memory. */
async function imageFailures({ boot, rootfsStamp }: SnapshotRecord): Promise<Failure[]> {
  if (boot.root.type !== "disk") return [];
  const found = await imageStamp(boot.root.rootfs);
  if (found === rootfsStamp) return [];
  const text = `expected ${boot.root.rootfs} as it was when the snapshot was taken (${rootfsStamp}), found it changed (${found})`;
  return [{ input: "rootfs", code: "file-unusable", text }];
}
