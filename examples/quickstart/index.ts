import { MicroVm } from "pulumi-microvm";

// kernel, nfsServer, nfsPort and the rest come from the stack configuration:
//   pulumi config set microvm:kernel /boot/vmlinuz-…
//   pulumi config set microvm:nfsServer 127.0.0.1
//   pulumi config set microvm:nfsPort 11111
const vm = new MicroVm("quickstart", { useNfsRoot: true });

export const cmdline = vm.cmdline;
export const console = vm.consoleLog;
export const state = vm.state;
