/** Pulumi resources for microVMs whose root file system is mounted over NFS. */

export { AgentFs, type AgentFsArgs } from "./agentfs.js";
export { type Change, type Changes, getChanges, type GetChangesOptions } from "./changes.js";
export type { ExportNetworkArgs, ExportRoot } from "./export-resource.js";
export { MicroVm, type BackendOutput, type DiskOutput } from "./microvm.js";
export type {
  ArrakisBackendArgs,
  CloudHypervisorBackendArgs,
  MicroVmArgs,
  NetworkArgs,
  PortForwardArgs,
  QemuBackendArgs,
  ReadinessArgs,
} from "./microvm-args.js";
export { NfsExport, type NfsExportArgs } from "./nfs-export.js";
export { MicroVmSnapshot, type MicroVmSnapshotArgs } from "./snapshot.js";
export {
  type CommandResult,
  downloadFiles,
  type GuestFile,
  type GuestFileArgs,
  runCommand,
  uploadFiles,
} from "./guest.js";
