/** Pulumi resources for microVMs whose root file system is mounted over NFS. */

export {
  MicroVm,
  type DiskOutput,
  type MicroVmArgs,
  type PortForwardArgs,
  type QemuBackendArgs,
  type ReadinessArgs,
} from "./microvm.js";
