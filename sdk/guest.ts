/** What a program can do in the guest of a VM on a server: its command server runs commands and keeps files. */

import * as pulumi from "@pulumi/pulumi";
import type { ArrakisApi } from "../provider/backends/arrakis/api.js";
import type { ArrakisBackend } from "../provider/backends/backend.js";
import { MicroVmError } from "../provider/errors.js";
import type { MicroVm } from "./microvm.js";
import { shownError } from "./run-error.js";

/** What a command came to. */
export interface CommandResult {
  /** What it printed, to standard output and standard error. */
  readonly output: string;
  /** How it failed, in the guest's words (`exit status 3`); absent when it did not. */
  readonly error?: string;
}

/** A file for the guest. */
export interface GuestFileArgs {
  /** Absolute path in the guest, or one below the folder of its command server. */
  path: pulumi.Input<string>;
  /** Text of the file. */
  content: pulumi.Input<string>;
}

/** A file of the guest. */
export interface GuestFile {
  readonly path: string;
  /** Text of the file. */
  readonly content: string;
}

/**
 * Runs a command in the guest's shell, in each `up` and never in a preview, and waits for its end. A command that fails is no error: see
 * `error`.
 */
export function runCommand(vm: MicroVm, cmd: pulumi.Input<string>): pulumi.Output<CommandResult> {
  return inGuest(vm, pulumi.output(cmd), async (api, vmName, command) => {
    const { output = "", error } = await api.command(vmName, command);
    return error ? { output, error } : { output };
  });
}

/** Writes files in the guest, in each `up` and never in a preview. */
export function uploadFiles(
  vm: MicroVm,
  files: pulumi.Input<pulumi.Input<GuestFileArgs>[]>,
): pulumi.Output<void> {
  return inGuest(
    vm,
    pulumi.output(files),
    async (api, vmName, given) => await api.upload(vmName, given as GuestFile[]),
  );
}

/** Reads text files of the guest, in each `up` and never in a preview. One that cannot be read is an error. */
export function downloadFiles(
  vm: MicroVm,
  paths: pulumi.Input<pulumi.Input<string>[]>,
): pulumi.Output<GuestFile[]> {
  return inGuest(vm, pulumi.output(paths), async (api, vmName, wanted) => {
    const separated = wanted.find((path) => path.includes(","));
    if (separated !== undefined) {
      const text = `expected paths without a comma, which separates them in this API, got "${separated}"`;
      throw new MicroVmError("invalid-input", text, { input: "paths" });
    }
    const found = wanted.length === 0 ? [] : await api.download(vmName, wanted);
    return found.map(({ path, content = "", error }) => {
      if (error) throw new MicroVmError("guest-agent", `${vmName}: ${path} could not be read: ${error}`);
      return { path, content };
    });
  });
}

/** Works in the guest once it is up and what is asked for is known. */
function inGuest<Asked, Result>(
  vm: MicroVm,
  asked: pulumi.Output<Asked>,
  work: (api: ArrakisApi, vmName: string, asked: Asked) => Promise<Result>,
): pulumi.Output<Result> {
  // Of a VM that is there already, the id is known in a preview as well.
  if (pulumi.runtime.isDryRun()) return pulumi.output<unknown>(pulumi.unknown) as pulumi.Output<Result>;
  // Its token makes no secret of what the guest says.
  const settled = pulumi.all([vm.vmName, pulumi.unsecret(vm.backend), asked, vm.id]);
  return settled.apply<Result>(async ([vmName, backend, known]) => {
    try {
      if (backend?.type !== "arrakis") {
        const text = `expected a VM on the back end "arrakis", got one on "${backend?.type ?? "qemu"}": log into it instead`;
        throw new MicroVmError("not-supported", text, { input: "vm" });
      }
      const { apiOf } = await import("../provider/backends/arrakis/api.js");
      return await work(await apiOf(backend as ArrakisBackend), vmName, known as Asked);
    } catch (error) {
      throw shownError(error);
    }
  });
}
