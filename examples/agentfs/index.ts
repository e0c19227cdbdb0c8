import * as pulumi from "@pulumi/pulumi";
import { AgentFs, getChanges, MicroVm } from "pulumi-microvm";

//   pulumi config set base /path/to/a/root/file/system
//   pulumi config set microvm:kernel /path/to/vmlinuz
const base = new pulumi.Config().require("base");

// .agentfs/agent.db in this folder: what the guest writes goes there, and the base stays as it is.
const fs = new AgentFs("fs", { id: "agent", baseDirectory: base });
const vm = new MicroVm("vm", { ...fs.root, useNfsRoot: true, memoryMiB: 256 });

export const cmdline = vm.cmdline;
export const consoleLog = vm.consoleLog;
// As of the end of this `pulumi up`; later, `npx microvm changes .agentfs/agent.db`.
export const changes = getChanges(fs, { after: vm });
