import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { AgentFs, MicroVm, NfsExport } from "pulumi-microvm";

// Takes agentfs on PATH or in $AGENTFS, and:
//   pulumi config set base /path/to/a/root/file/system
//   pulumi config set microvm:kernel /path/to/vmlinuz
// Without AgentFS, in place of base: a copy of it for each machine, in a folder of its name, which nfs-ganesha serves (run as root):
//   pulumi config set copies /path/to/the/copies
const config = new pulumi.Config();
const copies = config.get("copies");

// Whose machines there are, with their memory in MiB. After a change here, `pulumi preview` names that machine and no other.
const machines = {
  ada: 256,
  grace: 256,
  linus: 256,
};

/** A root of one's own, here a database in .agentfs: what one machine writes, no other sees. */
function rootOf(name: string) {
  if (copies !== undefined) return new NfsExport(`${name}-root`, { directory: join(copies, name) }).root;
  return new AgentFs(`${name}-root`, {
    id: `${pulumi.getStack()}-${name}`,
    baseDirectory: config.require("base"),
  }).root;
}

const vms = Object.entries(machines).map(([name, memoryMiB]) => {
  const vm = new MicroVm(name, { ...rootOf(name), useNfsRoot: true, memoryMiB });
  return [name, vm] as const;
});

export const vmNames = Object.fromEntries(vms.map(([name, vm]) => [name, vm.vmName]));
export const consoleLogs = Object.fromEntries(vms.map(([name, vm]) => [name, vm.consoleLog]));
