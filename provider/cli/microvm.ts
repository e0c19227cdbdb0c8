#!/usr/bin/env node
/** `microvm`: looks after the VMs of this host when Pulumi is not at hand, or no longer agrees. */

import { parseArgs } from "node:util";
import { MicroVmError, messageOf, quoted, withCode } from "../errors.js";
import { defaultStateDirectory } from "../host/state-directory.js";

const USAGE = `Usage: microvm COMMAND [OPTIONS]

  ps                 list the VMs of this host, and the exports that serve their roots
  console NAME       print a VM's console log; --follow goes on until interrupted
  rm NAME...         power VMs off and remove them, whoever they belong to; end an export's server, its files stay
  forget NAME...     give VMs up without ending them, so that Pulumi takes them as gone
  changes ID|FILE    say what a guest has changed in its AgentFS database, also while it runs
  kernel check FILE  say what a kernel image can boot; status 1 when that is no NFS root
  kernel build       build a kernel that boots an NFS root on every back end, and print its path
  doctor             say what this host can run, and what stands in the way; status 1 when something fails

Options:
  --state-directory DIR   where the VMs are (default: $XDG_STATE_HOME/pulumi-microvm,
                          else ~/.local/state/pulumi-microvm)
  --json                  ps, changes, kernel check, kernel build, doctor: print JSON
  --nfs HOST:PORT:PATH    doctor: look at this NFS root, too (HOST:PORT+MOUNTPORT:PATH where mountd is elsewhere)
  --kernel FILE           doctor: look at this kernel, too
  --source FILE|DIR       kernel build: a tarball or folder of Linux (default: the distribution's package linux-source)
  --output DIR            kernel build: where bzImage and config-RELEASE go (default: $XDG_CACHE_HOME/pulumi-microvm/kernel,
                          else ~/.cache/pulumi-microvm/kernel)
  --config FILE           kernel build: a configuration fragment that is laid over ours; may be given again
  --jobs N                kernel build: compilers at a time (default: one for each processor)
  -f, --follow            console: print what comes, too
  -h, --help              print this
`;

/** What the commands share. */
export interface CommandContext {
  readonly stateDirectory: string;
  /** Prints a line of the command's result. */
  readonly print: (line: string) => void;
}

/**
 * Runs one command line.
 *
 * @param words What follows the program's name.
 * @returns Exit status: 0 done, 1 failed, 2 not understood.
 */
export async function main(words: readonly string[]): Promise<number> {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(words);
  } catch (error) {
    process.stderr.write(`microvm: ${messageOf(error)}\n\n${USAGE}`);
    return 2;
  }
  const { values, positionals } = parsed;
  const [command, ...names] = positionals;
  const context: CommandContext = {
    stateDirectory: values["state-directory"] ?? defaultStateDirectory(),
    print: (line) => process.stdout.write(`${line}\n`),
  };
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  try {
    const status = await runCommand(context, command, names, values);
    if (status !== undefined) return status;
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    process.stderr.write(`microvm: ${withCode(error.message, error.code)}\n`);
    return 1;
  }
  const why =
    command === undefined ? "" : `microvm: not understood: ${positionals.map(quoted).join(" ")}\n\n`;
  process.stderr.write(`${why}${USAGE}`);
  return 2;
}

/** @returns undefined when there is no such command, or not with these words. Loads what the command needs alone. */
async function runCommand(
  context: CommandContext,
  command: string | undefined,
  names: readonly string[],
  values: ReturnType<typeof parse>["values"],
): Promise<number | undefined> {
  const [first] = names;
  switch (command ?? "") {
    case "ps":
      if (names.length > 0) return undefined;
      return await (await import("./vms.js")).listVms(context, values.json);
    case "console":
      if (first === undefined || names.length > 1) return undefined;
      return await (await import("./console.js")).printConsole(context, first, values.follow);
    case "rm":
      if (names.length === 0) return undefined;
      return await (await import("./vms.js")).removeVms(context, names);
    case "forget":
      if (names.length === 0) return undefined;
      return await (await import("./vms.js")).forgetVms(context, names);
    case "changes":
      if (first === undefined || names.length > 1) return undefined;
      return await (await import("./changes.js")).printChanges(context, first, values.json);
    case "kernel":
      return await runKernelCommand(context, names, values);
    case "doctor":
      if (names.length > 0) return undefined;
      return await (await import("./doctor.js")).runDoctor(context, values);
    default:
      return undefined;
  }
}

async function runKernelCommand(
  context: CommandContext,
  [command, file, ...rest]: readonly string[],
  values: ReturnType<typeof parse>["values"],
): Promise<number | undefined> {
  const { checkKernel, makeKernel } = await import("./kernel.js");
  if (command === "check" && file !== undefined && rest.length === 0) {
    return await checkKernel(context, file, values.json);
  }
  if (command === "build" && file === undefined) return await makeKernel(context, values);
  return undefined;
}

function parse(words: readonly string[]) {
  return parseArgs({
    args: [...words],
    allowPositionals: true,
    options: {
      "state-directory": { type: "string" },
      json: { type: "boolean", default: false },
      nfs: { type: "string" },
      kernel: { type: "string" },
      source: { type: "string" },
      output: { type: "string" },
      config: { type: "string", multiple: true },
      jobs: { type: "string" },
      follow: { type: "boolean", short: "f", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
}

async function run(): Promise<void> {
  process.exitCode = await main(process.argv.slice(2));
}

if (require.main === module) void run();
