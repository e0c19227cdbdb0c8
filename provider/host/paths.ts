/** Where things are in a state directory: pure, and the only place that turns a VM's name into a path. */

import { isAbsolute, join } from "node:path";

import { MicroVmError, shown } from "../errors.js";

/** Files of one VM, all absolute. */
export interface VmPaths {
  /** `STATE/<vmName>`, mode 0700. */
  readonly directory: string;
  /** The record, `vm.json`. */
  readonly record: string;
  /** The guest's serial console, as the VMM writes it. */
  readonly consoleLog: string;
  /** What the VMM itself prints. */
  readonly vmmLog: string;
  /** What passt prints, for a VM on its user network. */
  readonly passtLog: string;
  /** What a VMM tells of its own accord, where it does. */
  readonly vmmEvents: string;
  /** Name of the console for a VMM that must not be able to open it again: a folder that goes once the guest runs. */
  readonly serialName: string;
  /** Copy of the kernel image that the VM boots. */
  readonly kernel: string;
  /** Copy of the initramfs that the VM boots; there only when the boot configuration has one. */
  readonly initramfs: string;
  /** Raw image of the stateful disk; there only when the boot configuration has one. */
  readonly statefulDisk: string;
  /** Folder in which snapshots of the VM are prepared, and what a restored one starts from. */
  readonly snapshots: string;
}

/** Files of one snapshot, all absolute. */
export interface SnapshotPaths {
  /** Folder of all snapshots, `STATE/.snapshots`. */
  readonly parent: string;
  /** `STATE/.snapshots/<id>`. */
  readonly directory: string;
  /** The record, `snapshot.json`. */
  readonly record: string;
  /** The file whose presence says that the engine's state holds the snapshot. */
  readonly confirmed: string;
  /** Folder of what the VMM wrote. */
  readonly vmm: string;
  /** Copy of the stateful disk; there only when the VM had one. */
  readonly statefulDisk: string;
  /** Where the folder goes on its way out; what a killed process leaves there, every later one sweeps away. */
  readonly removing: string;
}

/** One DNS label (RFC 1123, section 2.1): letters, digits, hyphens inside, at most 63. */
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i;

const INSTANCE = /^[0-9a-f]{16}$/;

/** Whether a name may be a VM's: one DNS label. */
export function isVmName(name: string): boolean {
  return LABEL.test(name);
}

/**
 * The folder of one VM, `STATE/<vmName>`.
 *
 * @param stateDirectory Absolute path of the state directory.
 * @throws MicroVmError `invalid-input` when the name is not one DNS label, so that it never leaves the state directory.
 */
export function vmDirectory(stateDirectory: string, vmName: string): string {
  if (!isVmName(vmName)) {
    throw new MicroVmError(
      "invalid-input",
      `expected one DNS label (letters, digits and inner hyphens, at most 63), found ${shown(vmName)}`,
      { input: "vmName" },
    );
  }
  return join(absolute(stateDirectory), vmName);
}

/**
 * The files of one VM.
 *
 * @throws MicroVmError `invalid-input` as {@link vmDirectory}.
 */
export function vmPaths(stateDirectory: string, vmName: string): VmPaths {
  const directory = vmDirectory(stateDirectory, vmName);
  return {
    directory,
    record: join(directory, "vm.json"),
    consoleLog: join(directory, "console.log"),
    vmmLog: join(directory, "vmm.log"),
    passtLog: join(directory, "passt.log"),
    vmmEvents: join(directory, "vmm-events.json"),
    serialName: join(directory, "serial", "console"),
    kernel: join(directory, "kernel"),
    initramfs: join(directory, "initramfs"),
    statefulDisk: join(directory, "stateful.img"),
    snapshots: join(directory, "snapshots"),
  };
}

/** `<vmName>-<16 hex digits>` */
const SNAPSHOT_ID = /^([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)-[0-9a-f]{16}$/i;

/** Whether a text may be the id of a snapshot on this host. */
export function isSnapshotId(id: string): boolean {
  return SNAPSHOT_ID.test(id);
}

/**
 * The files of one snapshot.
 *
 * @throws MicroVmError `invalid-input` when it is no id of ours, so that it never leaves the state directory.
 */
export function snapshotPaths(stateDirectory: string, id: string): SnapshotPaths {
  if (!isSnapshotId(id)) {
    throw new MicroVmError(
      "invalid-input",
      `expected the id of a MicroVmSnapshot, <vmName>-<16 hex digits>, found ${shown(id)}`,
      { input: "snapshotId" },
    );
  }
  return filesIn(absolute(stateDirectory), id);
}

function filesIn(stateDirectory: string, id: string): SnapshotPaths {
  const parent = join(stateDirectory, ".snapshots");
  const directory = join(parent, id);
  return {
    parent,
    directory,
    ...snapshotFiles(directory),
    confirmed: join(directory, "confirmed"),
    removing: join(stateDirectory, `.removing-snapshot-${id}`),
  };
}

/** What is in the folder of a snapshot, also while it is prepared elsewhere. */
export function snapshotFiles(directory: string): Pick<SnapshotPaths, "record" | "vmm" | "statefulDisk"> {
  return {
    record: join(directory, "snapshot.json"),
    vmm: join(directory, "vmm"),
    statefulDisk: join(directory, "stateful.img"),
  };
}

/**
 * The file whose presence says that the engine's state holds the instance. A file of its own, not a field of
 * the record: the Pulumi program's process makes it while the provider's process may be writing the record.
 */
export function confirmedMarker(stateDirectory: string, vmName: string, instance: string): string {
  return join(vmDirectory(stateDirectory, vmName), `confirmed-${checkedInstance(instance)}`);
}

/** Where the folder of a VM goes that nobody claims any more: `STATE/.lost/<vmName>-<instance>`. */
export function lostDirectory(stateDirectory: string, vmName: string, instance: string): string {
  vmDirectory(stateDirectory, vmName);
  return join(absolute(stateDirectory), ".lost", `${vmName}-${checkedInstance(instance)}`);
}

/** The tombstone of a forgotten VM: `STATE/.forgotten/<vmName>`. */
export function forgottenMarker(stateDirectory: string, vmName: string): string {
  vmDirectory(stateDirectory, vmName);
  return join(absolute(stateDirectory), ".forgotten", vmName);
}

/**
 * The instance, if it is 16 hex digits.
 *
 * @throws Error when it is not: instances are made by us, so that is a fault of the caller.
 */
export function checkedInstance(instance: string): string {
  if (!INSTANCE.test(instance)) throw new Error(`not an instance (16 hex digits): ${shown(instance)}`);
  return instance;
}

/**
 * The state directory's path, if it is absolute.
 *
 * @throws MicroVmError `state-directory`
 */
export function absolute(stateDirectory: string): string {
  if (!isAbsolute(stateDirectory)) {
    throw new MicroVmError(
      "state-directory",
      `the state directory must be an absolute path, found ${shown(stateDirectory)}`,
    );
  }
  return stateDirectory;
}
