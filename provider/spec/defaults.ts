/** The default of each input that has one which does not depend on another input. */

/** What an absent input counts as. `nfsMountPort` and `vmName` depend on others: see check.ts. */
export const defaults = {
  useNfsRoot: false,
  nfsPath: "/",
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

/** The port of NFS itself (RFC 7530 section 3.1): a server there has a port mapper beside it. */
export const NFS_PORT = 2049;

/**
 * Where mountd is asked for when `nfsMountPort` is not given: on the NFS port itself (AgentFS serves both on
 * one port and has no rpcbind), or through rpcbind where the server is on the standard port.
 */
export function defaultMountPort(nfsPort: number): number | "rpcbind" {
  return nfsPort === NFS_PORT ? "rpcbind" : nfsPort;
}

/** `kernelArgs` with `panic=-1` in front unless they name a `panic=`; an empty list stays empty. */
export function withPanic(kernelArgs: readonly string[]): readonly string[] {
  if (kernelArgs.length === 0 || kernelArgs.some((word) => word.startsWith("panic="))) return kernelArgs;
  return ["panic=-1", ...kernelArgs];
}
