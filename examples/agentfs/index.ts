import * as pulumi from "@pulumi/pulumi";
import { AgentFs, getChanges, MicroVm } from "pulumi-microvm";

// Takes agentfs on PATH or in $AGENTFS, and:
//   pulumi config set base /path/to/a/root/file/system
//   pulumi config set microvm:kernel /path/to/vmlinuz
const base = new pulumi.Config().require("base");

// What the guest writes goes into .agentfs/STACK.db in this folder: a database for each stack. The base stays as it is.
const fs = new AgentFs("fs", { id: pulumi.getStack(), baseDirectory: base });
const vm = new MicroVm("vm", { ...fs.root, useNfsRoot: true, memoryMiB: 256 });

export const cmdline = vm.cmdline;
export const consoleLog = vm.consoleLog;
// As of the end of this `pulumi up`; later, `npx microvm changes STACK`.
export const changes = getChanges(fs, { after: vm });
