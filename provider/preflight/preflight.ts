/** The checks that can fail a preview: the NFS export and this host. The kernel's are where its facts are gathered. */

import type { BackendOptions } from "../backends/backend.js";
import type { BootConfiguration, Root } from "../boot/boot.js";
import { MicroVmError } from "../errors.js";
import type { Failure } from "../spec/validate.js";
import type { PreflightMode } from "../spec/spec.js";
import { qemuHost } from "./host.js";
import { describe, type ProbeRequest, probeOnce } from "./nfs/index.js";

/** What would be booted, and whether it will be. */
export interface PreflightRequest {
  readonly boot: BootConfiguration;
  readonly backend: BackendOptions;
  readonly mode: PreflightMode;
  /** Whether this up boots the VM: only then is a finding an error. */
  readonly willBoot: boolean;
}

/** What stands in the way, and what a person should know. */
export interface PreflightFindings {
  readonly failures: readonly Failure[];
  /** Findings that do not fail the preview, one line each. */
  readonly warnings: readonly string[];
}

/** Looks at the export and the host side by side; 5 s at most, once per server and export in a process. */
export async function preflight(request: PreflightRequest): Promise<PreflightFindings> {
  const { boot, backend, mode, willBoot } = request;
  if (mode === "off") return { failures: [], warnings: [] };
  const found = (
    await Promise.all([exportFinding(boot), willBoot ? hostFinding(backend) : undefined])
  ).filter((finding) => finding !== undefined);
  const fails = (finding: Finding) => mode === "error" && willBoot && finding.certain;
  return {
    failures: found.filter(fails),
    warnings: found
      .filter((finding) => !fails(finding))
      .map(({ input, text }) => `warning: ${input}: ${text}`),
  };
}

interface Finding extends Failure {
  readonly certain: boolean;
}

async function exportFinding({ root, cmdline }: BootConfiguration): Promise<Finding | undefined> {
  if (root.type !== "nfs") return undefined;
  const request = probeRequestOf(root, cmdline);
  const finding = await probeOnce(request);
  if (finding.kind === "ok") return undefined;
  return { ...describe(finding, request), certain: finding.certain };
}

/** What to ask the server of a root: it is reached from here, and `init=` on the command line names the program. */
export function probeRequestOf(root: Extract<Root, { type: "nfs" }>, cmdline: string): ProbeRequest {
  const { hostServer, port, mountPort, path } = root;
  const init = /(?:^| )init=(\S+)/.exec(cmdline)?.[1];
  return { server: hostServer, port, mountPort, path, init };
}

const hosts = new Map<string, Promise<Finding | undefined>>();

function hostFinding(backend: BackendOptions): Promise<Finding | undefined> {
  const key = JSON.stringify(backend);
  let finding = hosts.get(key);
  if (finding === undefined) {
    finding = askHost(backend);
    hosts.set(key, finding);
  }
  return finding;
}

async function askHost(backend: BackendOptions): Promise<Finding | undefined> {
  try {
    await qemuHost(backend);
    return undefined;
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    const { input = "backend", message } = error;
    return { input, text: message.replace(`${input}: `, ""), certain: true };
  }
}
