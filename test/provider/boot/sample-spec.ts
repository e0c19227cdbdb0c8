/** Specs and links to make boot configurations from. */

import type { GuestLink } from "../../../provider/boot/boot.js";
import type { Spec } from "../../../provider/spec/spec.js";

type NfsSpec = Extract<Spec, { useNfsRoot: true }>;
type DiskSpec = Extract<Spec, { useNfsRoot: false }>;

const common = {
  vmName: "my-vm",
  kernel: "/boot/vmlinuz",
  kernelArgs: ["panic=-1"],
  ip: "static",
  vcpus: 1,
  memoryMiB: 512,
  statefulDiskMiB: 0,
  portForwards: [],
  guestAccess: "internet",
  powerState: "running",
  readiness: { timeoutSeconds: 120 },
  shutdownTimeoutSeconds: 10,
  backend: { type: "qemu", machine: "q35", accelerator: "auto" },
  preflight: "error",
} as const;

/** What check makes of `useNfsRoot: true, nfsServer: "127.0.0.1", nfsPort: 11111`. */
export function nfsSpec(changes: Partial<NfsSpec> = {}): NfsSpec {
  return {
    ...common,
    useNfsRoot: true,
    nfsServer: "127.0.0.1",
    nfsPort: 11111,
    nfsPath: "/",
    nfsMountPort: 11111,
    nfsOptions: "rsize=1048576,wsize=1048576",
    ...changes,
  };
}

/** What check makes of `rootfs: "/path/to/rootfs.img"`. */
export function diskSpec(changes: Partial<DiskSpec> = {}): DiskSpec {
  return { ...common, useNfsRoot: false, rootfs: "/path/to/rootfs.img", ...changes };
}

/** The link of the seed's examples. */
export const seedLink: GuestLink = {
  kind: "user",
  guestAddress: "10.20.1.2",
  gatewayAddress: "10.20.1.1",
  nameServers: [],
};
