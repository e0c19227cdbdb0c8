import * as pulumi from "@pulumi/pulumi";
import { MicroVm, NfsExport } from "pulumi-microvm";

// Takes nfs-ganesha, nfs-ganesha-vfs and rpcbind, pulumi run as root, and:
//   pulumi config set base /path/to/a/root/file/system
//   pulumi config set microvm:kernel /path/to/vmlinuz
const base = new pulumi.Config().require("base");

// What the guest writes goes into the folder itself.
const files = new NfsExport("files", { directory: base });
const vm = new MicroVm("vm", { ...files.root, useNfsRoot: true, memoryMiB: 256 });

export const server = pulumi.interpolate`${files.nfsServer}:${files.nfsPort}`;
export const cmdline = vm.cmdline;
export const consoleLog = vm.consoleLog;
