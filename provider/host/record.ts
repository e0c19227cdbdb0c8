/** The record of one VM, `STATE/<vmName>/vm.json`: what a local back end must know of it after any crash. */

import { readdir, readFile } from "node:fs/promises";

import { z } from "zod";

import type { Owner, RequestedSize, VmSettings } from "../backends/backend.js";
import type { BootConfiguration } from "../boot/boot.js";
import { MicroVmError, messageOf, shown } from "../errors.js";
import { absolute, isVmName, vmPaths } from "./paths.js";
import type { ProcessIdentity } from "./process.js";
import { isAbsent, replaceFile, storageError } from "./storage.js";

/**
 * How far the VM has come; each step is recorded before the next begins.
 * `claimed`: the name is ours, nothing runs. `prepared`: boot files and disks are in place. `spawned`: the VMM
 * runs, the guest does not yet. `started`: the guest was let go. `ready`: it has proved its root (or was not
 * to be started). `removing`: it is on its way out, whoever finds it goes on with that.
 */
export type Phase = "claimed" | "prepared" | "spawned" | "started" | "ready" | "removing";

/** One VM, as its folder in the state directory describes it. Whether it is confirmed is in a file beside it (confirm.ts). */
export interface VmRecord {
  readonly version: 1;
  readonly vmName: string;
  readonly instance: string;
  readonly owner: Owner;
  readonly phase: Phase;
  /** The process that runs create. */
  readonly creator: ProcessIdentity;
  /** The VMM's process, once there is one. */
  readonly vmm?: ProcessIdentity;
  /** The VMM's control socket, in the runtime directory. */
  readonly controlSocket: string;
  readonly accelerator?: "kvm" | "tcg";
  readonly boot: BootConfiguration;
  readonly settings: VmSettings;
  /** Whether the guest has proved its root since it was last started. */
  readonly proved: boolean;
  /** File handle of the NFS root that the guest has mounted, in hex digits; absent where this host could not ask for it. */
  readonly rootHandle?: string;
  /** The snapshot that the guest which runs now was restored from; absent for one that has booted. */
  readonly restoredFrom?: string;
  /** What the guest was asked to use beyond what it was started with; absent when it was asked for nothing. */
  readonly requested?: RequestedSize;
  /** ISO 8601. */
  readonly createdAt: string;
}

/** Whether two are one resource of one program. */
export function isSameOwner(a: Owner, b: Owner): boolean {
  return a.organization === b.organization && a.urn === b.urn && a.program === b.program;
}

/** One folder of the state directory: its record, or why there is none to be had. */
export type ListedRecord =
  | { readonly vmName: string; readonly record: VmRecord }
  | { readonly vmName: string; readonly error: MicroVmError };

// Loose: what a later release of the same version adds survives a rewrite by this one.
const bootFile = { path: z.string(), sha256: z.string() };
const port = z.number().int();
const processIdentity = z.looseObject({
  pid: z.number().int().positive(),
  startTime: z.string(),
  bootId: z.string(),
});

const linkAddresses = {
  guestAddress: z.string(),
  gatewayAddress: z.string(),
  prefixLength: z.number().int().optional(),
  nameServers: z.array(z.string()),
  nfsOnly: z.literal(true).optional(),
};

/** Schema of a boot configuration, as records hold it. */
export const bootConfiguration: z.ZodType<BootConfiguration> = z.looseObject({
  kernel: z.looseObject(bootFile),
  initramfs: z.looseObject({ ...bootFile, generated: z.boolean() }).optional(),
  cmdline: z.string(),
  root: z.discriminatedUnion("type", [
    z.looseObject({
      type: z.literal("nfs"),
      server: z.string(),
      hostServer: z.string(),
      port,
      mountPort: z.union([port, z.literal("rpcbind")]),
      path: z.string(),
    }),
    z.looseObject({ type: z.literal("disk"), rootfs: z.string() }),
  ]),
  disks: z.array(
    z.looseObject({ path: z.string(), readonly: z.literal(true).optional(), numQueues: z.number().int() }),
  ),
  statefulDiskMiB: z.number().int(),
  link: z.discriminatedUnion("kind", [
    z.looseObject({
      kind: z.literal("user"),
      passt: z.looseObject({ mac: z.string() }).optional(),
      ...linkAddresses,
    }),
    z.looseObject({
      kind: z.literal("tap"),
      bridge: z.string(),
      tap: z.string().optional(),
      asIs: z.literal(true).optional(),
      mac: z.string(),
      ...linkAddresses,
    }),
  ]),
  portForwards: z.array(
    z.looseObject({
      hostPort: port,
      guestPort: port,
      protocol: z.enum(["tcp", "udp"]),
      hostAddress: z.string(),
    }),
  ),
  vcpus: z.number().int(),
  memoryMiB: z.number().int(),
  maxVcpus: z.number().int().optional(),
  maxMemoryMiB: z.number().int().optional(),
});

const settings: z.ZodType<VmSettings> = z.looseObject({
  backend: z.discriminatedUnion("type", [
    z.looseObject({
      type: z.literal("qemu"),
      machine: z.enum(["q35", "microvm"]),
      accelerator: z.enum(["auto", "kvm", "tcg"]),
      binary: z.string().optional(),
    }),
    z.looseObject({
      type: z.literal("cloud-hypervisor"),
      binary: z.string().optional(),
      apiSocket: z.string().optional(),
    }),
  ]),
  powerState: z.enum(["running", "paused", "stopped"]),
  readiness: z.looseObject({ timeoutSeconds: z.number(), console: z.string().optional() }),
  shutdownTimeoutSeconds: z.number(),
});

const vmRecord: z.ZodType<VmRecord> = z.looseObject({
  version: z.literal(1),
  vmName: z.string(),
  instance: z.string().regex(/^[0-9a-f]{16}$/),
  owner: z.looseObject({ organization: z.string(), urn: z.string(), program: z.string() }),
  phase: z.enum(["claimed", "prepared", "spawned", "started", "ready", "removing"]),
  creator: processIdentity,
  vmm: processIdentity.optional(),
  controlSocket: z.string(),
  accelerator: z.enum(["kvm", "tcg"]).optional(),
  boot: bootConfiguration,
  settings,
  proved: z.boolean(),
  rootHandle: z
    .string()
    .regex(/^(?:[0-9a-f]{2}){1,64}$/)
    .optional(),
  restoredFrom: z.string().optional(),
  requested: z
    .looseObject({ vcpus: z.number().int().optional(), memoryMiB: z.number().int().optional() })
    .optional(),
  createdAt: z.string(),
});

/**
 * The record of a VM.
 *
 * @returns undefined when there is none.
 * @throws MicroVmError `record-unreadable` when it is torn or of another version; `state-directory` when it
 * cannot be read.
 */
export async function readRecord(stateDirectory: string, vmName: string): Promise<VmRecord | undefined> {
  const path = vmPaths(stateDirectory, vmName).record;
  try {
    return parseRecord(await readFile(path, "utf8"), vmName, path);
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw storageError(error, `read ${path}`);
  }
}

/**
 * The text of a record's file.
 *
 * @throws Error when {@link readRecord} would not take it: a fault of ours, found before it is on the disk.
 */
export function recordText(record: VmRecord): string {
  vmRecord.parse(record);
  return `${JSON.stringify(record, undefined, 2)}\n`;
}

/**
 * Replaces the record of a VM whose name is claimed: complete and on the disk when this returns, or unchanged.
 *
 * @throws MicroVmError `state-directory` when it cannot be written or the VM's folder is not this instance's
 * any more.
 */
export async function writeRecord(stateDirectory: string, record: VmRecord): Promise<void> {
  const { directory, record: path } = vmPaths(stateDirectory, record.vmName);
  const present = await readRecord(stateDirectory, record.vmName);
  if (present?.instance !== record.instance) {
    const found = present === undefined ? "holds no record" : `is of instance ${present.instance}`;
    throw new MicroVmError(
      "state-directory",
      `${directory} ${found} and not of instance ${record.instance} any more: something removed the VM meanwhile`,
    );
  }
  try {
    await replaceFile(path, recordText(record));
  } catch (error) {
    throw storageError(error, `write ${path}`);
  }
}

/** The records of all VMs in a state directory, by name; empty when the state directory is not there. */
export async function listRecords(stateDirectory: string): Promise<ListedRecord[]> {
  const listed: ListedRecord[] = [];
  for (const vmName of await vmNames(absolute(stateDirectory))) {
    try {
      const record = await readRecord(stateDirectory, vmName);
      if (record !== undefined) listed.push({ vmName, record });
    } catch (error) {
      if (!(error instanceof MicroVmError)) throw error;
      listed.push({ vmName, error });
    }
  }
  return listed;
}

async function vmNames(stateDirectory: string): Promise<string[]> {
  try {
    const entries = await readdir(stateDirectory, { withFileTypes: true });
    // Our own folders begin with a dot, which no VM's name does.
    const folders = entries.filter((entry) => entry.isDirectory() && isVmName(entry.name));
    const names = folders.map((entry) => entry.name);
    names.sort();
    return names;
  } catch (error) {
    if (isAbsent(error)) return [];
    throw storageError(error, `list ${stateDirectory}`);
  }
}

function parseRecord(text: string, vmName: string, path: string): VmRecord {
  const wayOut = `\`microvm rm ${vmName}\` removes the VM and its folder`;
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw new MicroVmError("record-unreadable", `${path} is torn: ${messageOf(error)}; ${wayOut}`, {
      cause: error,
    });
  }
  const version = z.looseObject({ version: z.unknown() }).safeParse(content).data?.version;
  if (version !== 1) {
    throw new MicroVmError(
      "record-unreadable",
      `${path} has version ${shown(version)}, and this release reads version 1; use the release that made the VM, or ${wayOut}`,
    );
  }
  const parsed = vmRecord.safeParse(content);
  if (!parsed.success) {
    throw new MicroVmError(
      "record-unreadable",
      `${path} is not a record: ${z.prettifyError(parsed.error).replaceAll(/\s+/g, " ")}; ${wayOut}`,
    );
  }
  if (parsed.data.vmName !== vmName) {
    throw new MicroVmError(
      "record-unreadable",
      `${path} is the record of ${shown(parsed.data.vmName)}: its folder was renamed; name it so again, or ${wayOut}`,
    );
  }
  return parsed.data;
}
