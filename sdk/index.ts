/** Pulumi resources for microVMs whose root file system is mounted over NFS. */

export {
  MicroVm,
  type CloudHypervisorBackendArgs,
  type DiskOutput,
  type MicroVmArgs,
  type NetworkArgs,
  type PortForwardArgs,
  type QemuBackendArgs,
  type ReadinessArgs,
} from "./microvm.js";
export { MicroVmSnapshot, type MicroVmSnapshotArgs } from "./snapshot.js";
