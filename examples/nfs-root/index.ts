import { MicroVm } from "pulumi-microvm";

// kernel, nfsServer, nfsPort, nfsMountPort and nfsPath come from the stack configuration:
//   pulumi config set microvm:kernel /path/to/vmlinuz
//   pulumi config set microvm:nfsServer 127.0.0.1
//   pulumi config set microvm:nfsPort 11111
const vm = new MicroVm("web", { useNfsRoot: true, memoryMiB: 256 });

export const vmName = vm.vmName;
export const cmdline = vm.cmdline;
export const state = vm.state;
export const rootEvidence = vm.rootEvidence;
export const consoleLog = vm.consoleLog;
