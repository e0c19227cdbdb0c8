/** Checked inputs, as state holds them and as check hands them out. */

import type { Values } from "../../../provider/plan/fields.js";
import { diskSpec, nfsSpec } from "../boot/sample-spec.js";

const derived = {
  kernelSha256: "a".repeat(64),
  stateDirectory: "/state",
  observed: "running",
  owner: { organization: "organization", urn: "urn:pulumi:a::b::c::d", program: "/srv" },
};

/** Checked inputs of an NFS root. */
export const nfsState: Values = {
  ...nfsSpec(),
  ...derived,
  nfsServerAddress: "127.0.0.1",
  cmdline: "console=ttyS0 root=/dev/nfs",
  disks: [],
};

/** Checked inputs of a disk root. */
export const diskState: Values = {
  ...diskSpec(),
  ...derived,
  rootfsDigest: "b".repeat(64),
  cmdline: "console=ttyS0 root=/dev/vda",
  disks: [{ path: "/path/to/rootfs.img", readonly: true, numQueues: 1 }],
};

/** The same without some of its values. */
export function without(values: Values, ...names: readonly string[]): Values {
  return Object.fromEntries(Object.entries(values).filter(([name]) => !names.includes(name)));
}
