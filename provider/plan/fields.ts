/**
 * The policy table: what a changed input means for a running VM, per back end. The only place that knows; the
 * README's table of inputs is generated from it.
 */

import { isDeepStrictEqual } from "node:util";
import { isBehind, linkOf } from "../boot/network.js";
import type { BackendOptions } from "../backends/backend.js";
import { defaults } from "../spec/defaults.js";
import type { DerivedInputs } from "../spec/checked.js";
import type { InputName } from "../spec/schema.js";
import { isEqual } from "./equal.js";

/**
 * What a change does. `replace`: the VM goes and a new one comes. `update`: the VM is changed in place.
 * `settings`: the resource is updated, the VM untouched. `grow`: larger is an update, smaller an error.
 * `resize`: up to the maximum that the VM was made with an update, else a replace.
 * `none`: the value is a source of others, which are compared themselves. `unsupported`: an error when set.
 */
export type Policy = "replace" | "update" | "settings" | "grow" | "resize" | "none" | "unsupported";

/** Names of what is compared between two checked inputs. */
export type FieldName = InputName | keyof DerivedInputs;

/** One row of the table. */
export interface Field {
  /** What the input means, in one sentence for the README. */
  readonly meaning: string;
  /** Its type, as the README shows it. */
  readonly type: string;
  /** How the README shows what an absent input counts as; absent for "none". */
  readonly default?: string;
  /** What a change does, on the back ends of this release. */
  readonly change: Readonly<Record<BackendOptions["type"], Policy>>;
  /** What an old value that is absent counts as (an output that was left out, state of an older release); by default nothing. */
  readonly absent?: unknown;
  /** Whether two values that differ mean the same, given all old and new values. */
  readonly same?: (olds: Values, news: Values) => boolean;
}

/** Values of checked inputs or outputs, by name. */
export type Values = Readonly<Record<string, unknown>>;

/** What a change is on this host's back ends, and on a server's where that differs. */
const each = (policy: Policy, arrakis: Policy = policy): Field["change"] => ({
  qemu: policy,
  "cloud-hypervisor": policy,
  arrakis,
});

/** The public inputs, in the README's order. */
export const fields: Readonly<Record<InputName, Field>> = {
  vmName: {
    meaning: "Name of the VM, unique on the host: one DNS label.",
    type: "string",
    default: "the resource's name and 8 hex digits",
    change: each("replace"),
  },
  kernel: {
    meaning:
      "Absolute path of a kernel image on this host; its content counts, not its path. On a server: a path there.",
    type: "string",
    change: each("none", "replace"),
  },
  initramfs: {
    meaning: "Absolute path of an initramfs; one is made when the kernel has NFS or virtio only as modules.",
    type: "string",
    change: each("none", "replace"),
  },
  useNfsRoot: {
    meaning: "Whether the root file system is mounted over NFS.",
    type: "boolean",
    default: "`false`",
    change: each("replace"),
  },
  nfsServer: {
    meaning: "Host name or IPv4 address of the NFS server; a loopback address means this host.",
    type: "string",
    change: each("replace"),
    same: isSameServer,
  },
  nfsPort: {
    meaning: "TCP port of the NFS server.",
    type: "integer",
    change: each("replace"),
  },
  nfsPath: {
    meaning: "Path of the export.",
    type: "string",
    default: '`"/"`',
    change: each("replace"),
  },
  nfsMountPort: {
    meaning: 'TCP port of mountd, or `"rpcbind"` to ask the server\'s port mapper.',
    type: 'integer or `"rpcbind"`',
    default: '`nfsPort`; `"rpcbind"` when that is 2049',
    change: each("replace"),
  },
  nfsOptions: {
    meaning:
      "More NFS mount options; `rsize` and `wsize` are added unless named, an empty text adds nothing.",
    type: "string",
    default: '`"rsize=1048576,wsize=1048576"`',
    change: each("replace"),
  },
  nfsExport: {
    meaning:
      "Id of the `AgentFs` or `NfsExport` that serves the root, part of its `root`: where that is made anew, so is the VM.",
    type: "string",
    change: each("replace"),
  },
  rootfs: {
    meaning:
      "Absolute path of a raw ext4 image, the read-only root of a disk boot; ignored with an NFS root.",
    type: "string",
    // Unlike a kernel it is not copied: the VM holds on to this very file.
    change: each("replace"),
  },
  entryPoint: {
    meaning: 'Handed to the guest as `entry_point="…"` on the kernel command line.',
    type: "string",
    change: each("replace"),
  },
  kernelArgs: {
    meaning:
      "More words for the kernel command line; `panic=-1` is added unless named, an empty list adds nothing.",
    type: "list of strings",
    default: '`["panic=-1"]`',
    change: each("replace"),
    absent: defaults.kernelArgs,
  },
  ip: {
    meaning: 'How the guest gets its address: `"static"`, `"dhcp"`, or an IPv4 address of the link.',
    type: "string",
    default: '`"static"`',
    change: each("replace", "unsupported"),
    absent: defaults.ip,
  },
  vcpus: {
    meaning: "Number of virtual CPUs; on Cloud Hypervisor it grows in place up to `maxVcpus`.",
    type: "integer",
    default: "`1`",
    change: { qemu: "replace", "cloud-hypervisor": "resize", arrakis: "unsupported" },
    absent: defaults.vcpus,
  },
  memoryMiB: {
    meaning:
      "Memory of the guest, in MiB; on Cloud Hypervisor it grows in place up to `maxMemoryMiB`, by multiples of 128.",
    type: "integer",
    default: "`512`",
    change: { qemu: "replace", "cloud-hypervisor": "resize", arrakis: "unsupported" },
    absent: defaults.memoryMiB,
  },
  maxVcpus: {
    meaning: "vCPUs that the VM can grow to without a replace (Cloud Hypervisor).",
    type: "integer",
    change: { qemu: "unsupported", "cloud-hypervisor": "replace", arrakis: "unsupported" },
  },
  maxMemoryMiB: {
    meaning: "Memory that the VM can grow to without a replace (Cloud Hypervisor).",
    type: "integer",
    change: { qemu: "unsupported", "cloud-hypervisor": "replace", arrakis: "unsupported" },
  },
  statefulDiskMiB: {
    meaning: "Size of the VM's own disk in MiB, `0` for none; it goes when the VM goes.",
    type: "integer",
    default: "`0`",
    change: each("grow", "unsupported"),
    absent: defaults.statefulDiskMiB,
  },
  portForwards: {
    meaning: "Host ports that lead to guest ports: `{ hostPort, guestPort, protocol?, hostAddress? }`.",
    type: "list of objects",
    default: "`[]`",
    change: each("update", "unsupported"),
    absent: defaults.portForwards,
  },
  network: {
    meaning:
      "`{ bridge?, tap?, subnet? }` of a Cloud Hypervisor VM: an existing bridge or tap is used and left, a missing bridge is made. `{ passt: true }`: a user network instead.",
    type: "object",
    default: '`{ bridge: "microvm0", subnet: "10.20.1.1/16" }`',
    change: { qemu: "unsupported", "cloud-hypervisor": "replace", arrakis: "unsupported" },
    same: (olds, news) => isDeepStrictEqual(effectiveNetwork(olds), effectiveNetwork(news)),
  },
  guestAccess: {
    meaning:
      '`"internet"`, on QEMU with this host\'s loopback services; `"nfs-only"`: its root\'s server and ports alone.',
    type: "string",
    default: '`"internet"`',
    change: each("replace"),
    absent: defaults.guestAccess,
  },
  snapshotId: {
    meaning: "Id of a `MicroVmSnapshot` on this host that the guest is restored from (Cloud Hypervisor).",
    type: "string",
    change: { qemu: "unsupported", "cloud-hypervisor": "replace", arrakis: "replace" },
  },
  acceptStaleRoot: {
    meaning:
      "Whether a guest may be restored onto a writable NFS root, over whatever happened there since its snapshot.",
    type: "boolean",
    default: "`false`",
    change: { qemu: "unsupported", "cloud-hypervisor": "settings", arrakis: "settings" },
  },
  powerState: {
    meaning: '`"running"`, `"paused"` or `"stopped"`.',
    type: "string",
    default: '`"running"`',
    change: each("update"),
    absent: defaults.powerState,
  },
  readiness: {
    meaning:
      "`timeoutSeconds`: how long the proof may take; `console`: a regular expression that a line must match; `required`, on a server: a guest that cannot be asked fails the up.",
    type: "object",
    default: "`{ timeoutSeconds: 120 }`",
    change: each("settings"),
    absent: defaults.readiness,
  },
  shutdownTimeoutSeconds: {
    meaning: "How long an orderly power-off may take before it is forced, in seconds.",
    type: "integer",
    default: "`10`",
    change: each("settings"),
    absent: defaults.shutdownTimeoutSeconds,
  },
  backend: {
    meaning:
      '`{ type: "qemu", machine?: "q35" \\| "microvm", accelerator?: "auto" \\| "kvm" \\| "tcg", binary? }`, `{ type: "cloud-hypervisor", binary? }`, or `{ type: "arrakis", url, token?, caFile? }`.',
    type: "object",
    default: '`{ type: "qemu" }`',
    change: each("replace"),
    absent: defaults.backend,
  },
  configFile: {
    meaning: "Absolute path of an Arrakis config.yaml; its values count where the program gives none.",
    type: "string",
    change: each("none", "unsupported"),
  },
  preflight: {
    meaning: 'What a certain finding before the boot is: `"error"`, `"warn"` or `"off"`.',
    type: "string",
    default: '`"error"`',
    change: each("settings"),
    absent: defaults.preflight,
  },
};

/** A server derives its own. */
const derived = (change: Policy, same?: Field["same"]): Field => ({
  meaning: "",
  type: "",
  change: each(change, "none"),
  same,
});

/** What check derives and the preview shows. */
export const derivedFields: Readonly<Record<keyof DerivedInputs, Field>> = {
  cmdline: derived("replace"),
  disks: derived("none"),
  kernelSha256: derived("replace"),
  // A running VM keeps its own copy of a generated one: a newer busybox is no reason to replace it.
  initramfsSha256: derived(
    "replace",
    (olds, news) => olds["generatedInitramfs"] !== undefined && news["generatedInitramfs"] !== undefined,
  ),
  generatedInitramfs: derived("none"),
  rootfsDigest: derived("replace"),
  // Where a name has moved to shows in the command line, but not in that of a guest whose relays lead there.
  nfsServerAddress: derived(
    "replace",
    (olds, news) => news["guestAccess"] !== "nfs-only" || isSameServer(olds, news),
  ),
  stateDirectory: derived("none"),
  // Compared with powerState, not with its own past: see plan.ts.
  observed: derived("none"),
};

/** Whether a field has the same effective value before and after. */
export function isSame(name: FieldName, field: Field, olds: Values, news: Values): boolean {
  // Of a VM on a server, what is absent the server decides, before and after.
  const [before, after] = [olds[name] ?? field.absent, news[name] ?? field.absent];
  return isEqual(before, after) || (field.same?.(olds, news) ?? false);
}

/** Whether a value is what an absent one counts as. */
export function isDefault(name: string, value: unknown): boolean {
  const absent = Object.hasOwn(fields, name) ? fields[name as InputName].absent : undefined;
  return absent !== undefined && isEqual(value, absent);
}

function isSameServer(olds: Values, news: Values): boolean {
  return effectiveServer(olds) !== undefined && effectiveServer(olds) === effectiveServer(news);
}

function effectiveServer(values: Values): string | undefined {
  const address = values["nfsServerAddress"];
  const link = linkOf(values);
  if (typeof address !== "string" || link === undefined) return undefined;
  return isBehind(address, link) ? link.gatewayAddress : address;
}

/** Where a tap is; of another back end's link, nothing. An unknown one equals no other. */
function effectiveNetwork(values: Values): unknown {
  const link = linkOf(values);
  if (link === undefined) return Symbol("unknown");
  return link.kind === "tap"
    ? [link.bridge, link.tap, link.gatewayAddress, link.prefixLength]
    : values["network"];
}
