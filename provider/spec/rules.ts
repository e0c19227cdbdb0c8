/** The second half of check: rules that need more than one input, over the values that are known. */

import { isIPv4 } from "node:net";
import { isThisHost, takeSamePort } from "../boot/network.js";
import { shown } from "../errors.js";
import { tapNetworkFailures } from "./network-rules.js";
import type { InputName, InputValues } from "./schema.js";
import { isOnPasst, passtFailures } from "./passt-rules.js";
import { staleRootFailures } from "./snapshot-rules.js";
import { userNetworkFailures } from "./user-network-rules.js";
import type { Failure } from "./validate.js";

/** Values after defaults, and which inputs a preview does not know yet. */
export interface KnownValues {
  readonly values: InputValues;
  readonly unknown: ReadonlySet<InputName>;
}

/** Words of the kernel command line that other inputs decide; a second one would win in silence. */
const RESERVED_WORDS: Readonly<Record<string, string>> = {
  root: "useNfsRoot decides it",
  nfsroot: "nfsServer, nfsPath and nfsOptions decide it",
  nfsaddrs: "ip decides it",
  ip: "ip decides it",
  console: "the console is where the evidence comes from",
  rdinit: "the initramfs decides it",
  gateway_ip: "it is set already",
  guest_ip: "it is set already",
  vm_name: "vmName decides it",
  entry_point: "entryPoint decides it",
  "--": "what follows it would not be the kernel's",
};

/** NFS options that other inputs decide, or that the boot relies on. */
const RESERVED_NFS_OPTIONS: Readonly<Record<string, string>> = {
  port: "nfsPort decides it",
  mountport: "nfsMountPort decides it",
  vers: "the root is NFS version 3",
  nfsvers: "the root is NFS version 3",
  v2: "the root is NFS version 3",
  v3: "it is set already",
  v4: "the root is NFS version 3",
  tcp: "it is set already",
  udp: "the root is mounted over TCP",
  proto: "the root is mounted over TCP",
  nolock: "it is set already",
  lock: "no lock manager runs before the root is mounted",
  addr: "nfsServer decides it",
  mountaddr: "nfsServer decides it",
  mounthost: "nfsServer decides it",
  mountvers: "the root is NFS version 3",
  mountproto: "the root is mounted over TCP",
  minorversion: "the root is NFS version 3",
  rdma: "the root is mounted over TCP",
};

/** The lowest loglevel at which the kernel's lines that prove a root (KERN_INFO, 6) reach the console. */
const EVIDENCE_LOGLEVEL = 7;

/** Every rule over more than one input. */
export function crossFieldFailures(known: KnownValues): Failure[] {
  return [
    ...rootFailures(known),
    ...reservedWordFailures(known.values),
    ...reservedNfsOptionFailures(known.values),
    ...hiddenEvidenceFailures(known),
    ...portForwardFailures(known.values),
    ...requiredFailures(known.values),
    ...backendFailures(known),
    ...serverFailures(known.values),
  ];
}

function missing(known: KnownValues, name: InputName): boolean {
  return known.values[name] === undefined && !known.unknown.has(name);
}

function rootFailures(known: KnownValues): Failure[] {
  const { values, unknown } = known;
  const failures: Failure[] = [];
  if (missing(known, "kernel")) {
    failures.push({ input: "kernel", text: "expected the absolute path of a kernel image, got nothing" });
  }
  if (unknown.has("useNfsRoot")) return failures;
  if (values.useNfsRoot === true) {
    if (missing(known, "nfsServer")) {
      failures.push({
        input: "nfsServer",
        text: "NFS server address is required when useNfsRoot is true, got nothing",
      });
    }
    if (missing(known, "nfsPort")) {
      failures.push({
        input: "nfsPort",
        text: "NFS server port is required when useNfsRoot is true, got nothing",
      });
    }
    return failures;
  }
  if (missing(known, "rootfs")) {
    failures.push({
      input: "rootfs",
      text: "expected the absolute path of a root file system image (or useNfsRoot: true), got nothing",
    });
  }
  return failures;
}

function reservedWordFailures({ kernelArgs }: InputValues): Failure[] {
  return (kernelArgs ?? []).flatMap((word) => {
    const name = word === "--" ? word : (word.split("=", 1)[0] ?? word);
    const reason = Object.hasOwn(RESERVED_WORDS, name) ? RESERVED_WORDS[name] : undefined;
    return reason === undefined
      ? []
      : [{ input: "kernelArgs", text: `expected no "${name}" (${reason}), got ${shown(word)}` }];
  });
}

function reservedNfsOptionFailures({ nfsOptions }: InputValues): Failure[] {
  return (nfsOptions ?? "").split(",").flatMap((option) => {
    const name = option.split("=", 1)[0] ?? option;
    const reason = Object.hasOwn(RESERVED_NFS_OPTIONS, name) ? RESERVED_NFS_OPTIONS[name] : undefined;
    return reason === undefined
      ? []
      : [{ input: "nfsOptions", text: `expected no "${name}" (${reason}), got ${shown(option)}` }];
  });
}

function hiddenEvidenceFailures({ values, unknown }: KnownValues): Failure[] {
  if (unknown.has("readiness") || values.readiness?.console !== undefined) return [];
  const hiding = (values.kernelArgs ?? []).find((word) => {
    // The kernel reads a level such as 4,x as 4: what is not plainly high enough counts as low.
    if (word.startsWith("loglevel=")) return !(Number(word.slice(9)) >= EVIDENCE_LOGLEVEL);
    return word === "quiet";
  });
  if (hiding === undefined) return [];
  return [
    {
      input: "kernelArgs",
      text: `expected no ${JSON.stringify(hiding)} (it hides the console lines that prove the root), unless readiness.console names a line of your guest's own`,
    },
  ];
}

function portForwardFailures({ portForwards }: InputValues): Failure[] {
  const forwards = portForwards ?? [];
  return forwards.flatMap((forward, index) => {
    const twin = forwards.slice(0, index).findIndex((other) => takeSamePort(forward, other));
    return twin === -1
      ? []
      : [
          {
            input: `portForwards.${index}.hostPort`,
            text: `expected a port that no other forward uses, got that of portForwards.${twin}`,
          },
        ];
  });
}

function requiredFailures({ readiness }: InputValues): Failure[] {
  return refusals([
    ["readiness.required", readiness?.required === false, "every guest on this host must show its root"],
  ]);
}

type Refusal = readonly [
  input: InputName | "backend.binary" | "readiness.required",
  given: boolean,
  reason: string,
];

function backendFailures({ values, unknown }: KnownValues): Failure[] {
  const { backend } = values;
  switch (backend?.type) {
    case undefined:
      return [];
    case "qemu":
      return [...refusals(qemuRefusals(values)), ...userNetworkFailures(values)];
    case "cloud-hypervisor":
      return [
        ...attachedFailures({ values, unknown }),
        ...roomFailures(values),
        ...staleRootFailures(values, unknown),
        ...(isOnPasst(values) ? passtFailures(values) : tapNetworkFailures(values, unknown)),
      ];
    case "arrakis":
      return []; // its rules are its own: see server-rules.ts
    default:
      return backend satisfies never;
  }
}

function refusals(rows: readonly Refusal[]): Failure[] {
  return rows.flatMap(([input, given, reason]) =>
    given ? [{ input, code: "not-supported" as const, text: `not supported: ${reason}; leave it out` }] : [],
  );
}

/** Into a VMM that somebody else keeps running: its process and its network are theirs. */
function attachedFailures({ values, unknown }: KnownValues): Failure[] {
  const { backend, network, portForwards = [], guestAccess, snapshotId } = values;
  if (backend?.type !== "cloud-hypervisor" || backend.apiSocket === undefined || isOnPasst(values)) return [];
  const theirs = "the network of a VMM at backend.apiSocket is its owner's";
  const rows: readonly Refusal[] = [
    ["backend.binary", backend.binary !== undefined, "the VMM at backend.apiSocket runs already"],
    ["portForwards", portForwards.length > 0, `${theirs}, and no rules are made in it`],
    ["guestAccess", guestAccess === "nfs-only", `${theirs}, and no rules are made in it`],
    ["snapshotId", snapshotId !== undefined, "a VMM at backend.apiSocket restores no snapshots"],
  ];
  const text = `expected the name of an existing tap (${theirs}, and no tap is made in it), got nothing`;
  const hasTap = unknown.has("network") || network?.tap !== undefined;
  return [...refusals(rows), ...(hasTap ? [] : [{ input: "network.tap", text }])];
}

/** A VM grows up to its maximum, so it cannot begin above it. */
function roomFailures({ vcpus, maxVcpus, memoryMiB, maxMemoryMiB }: InputValues): Failure[] {
  const rows = [
    ["maxVcpus", "vcpus", vcpus, maxVcpus],
    ["maxMemoryMiB", "memoryMiB", memoryMiB, maxMemoryMiB],
  ] as const;
  return rows.flatMap(([input, other, now, most]) =>
    now !== undefined && most !== undefined && most < now
      ? [{ input, text: `expected at least ${other}, which is ${now}, got ${most}` }]
      : [],
  );
}

function qemuRefusals(values: InputValues): readonly Refusal[] {
  return [
    ["snapshotId", values.snapshotId !== undefined, "the qemu back end restores no snapshots"],
    ["acceptStaleRoot", values.acceptStaleRoot !== undefined, "the qemu back end restores no snapshots"],
    [
      "network",
      values.network !== undefined,
      "the qemu back end runs on QEMU's user network, without a bridge",
    ],
    ["maxVcpus", values.maxVcpus !== undefined, "the qemu back end changes vcpus by a replace"],
    ["maxMemoryMiB", values.maxMemoryMiB !== undefined, "the qemu back end changes memoryMiB by a replace"],
  ];
}

function serverFailures({ nfsServer, useNfsRoot }: InputValues): Failure[] {
  if (useNfsRoot !== true || nfsServer === undefined || !isIPv4(nfsServer) || !isUnusableServer(nfsServer)) {
    return [];
  }
  return [{ input: "nfsServer", text: `expected the address of one host, got ${shown(nfsServer)}` }];
}

/** Multicast, reserved and broadcast addresses (RFC 1112, RFC 919), and "this network" except the wildcard. */
function isUnusableServer(address: string): boolean {
  const first = Number(address.split(".")[0]);
  return first >= 224 || (first === 0 && !isThisHost(address));
}
