/** What keeps this host from running a guest: each thing once in a while, however many VMs ask. */

import type { LocalBackend } from "../backends/backend.js";
import { MicroVmError } from "../errors.js";
import { assertKvm, usableCloudHypervisor } from "./cloud-hypervisor.js";
import type { Finding } from "./finding.js";
import { chooseAccelerator, usableQemu } from "./host.js";
import { hostMemory, memoryFinding, type HostMemory } from "./memory.js";

/** What was seen counts for so long, in milliseconds: a preview, not the life of a server. */
const FRESH_MILLISECONDS = 10_000;

const backends = new Map<string, Promise<readonly Finding[]>>();
let memory: Promise<HostMemory | undefined> | undefined;
let seenAt = -Infinity;

/**
 * Looks at the hypervisor, the accelerator and the memory of this host.
 *
 * @param memoryMiB Memory of the guest; absent while it is not known.
 * @param vmName Name of the VM; absent while it is not known.
 */
export async function hostFindings(
  backend: LocalBackend,
  memoryMiB: number | undefined,
  vmName?: string,
): Promise<readonly Finding[]> {
  if (performance.now() - seenAt >= FRESH_MILLISECONDS) forgetHost();
  const found = vmmFindings(backend, vmName);
  memory ??= hostMemory();
  const [ofBackend, host] = await Promise.all([found, memory]);
  const ofMemory = memoryMiB === undefined || host === undefined ? undefined : memoryFinding(memoryMiB, host);
  return ofMemory === undefined ? ofBackend : [...ofBackend, ofMemory];
}

/** Forgets what was seen: the next question looks again. */
export function forgetHost(): void {
  backends.clear();
  memory = undefined;
  seenAt = performance.now();
}

async function vmmFindings(backend: LocalBackend, vmName: string | undefined): Promise<readonly Finding[]> {
  if (backend.type === "cloud-hypervisor" && backend.apiSocket !== undefined) {
    const { attachedFindings } = await import("./attached.js");
    return await attachedFindings(backend.apiSocket, vmName);
  }
  const key = JSON.stringify(backend);
  const found = backends.get(key) ?? backendFindings(backend);
  backends.set(key, found);
  return await found;
}

async function backendFindings(backend: LocalBackend): Promise<readonly Finding[]> {
  const looks =
    backend.type === "qemu"
      ? [() => usableQemu(backend), () => chooseAccelerator(backend.accelerator)]
      : [() => usableCloudHypervisor(backend), () => assertKvm()];
  const found = await Promise.all(looks.map(findingOf));
  return found.filter((finding) => finding !== undefined);
}

/** The error of a look at the host, as a finding. */
async function findingOf(look: () => Promise<unknown>): Promise<Finding | undefined> {
  try {
    await look();
    return undefined;
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    const { input = "backend", code, text } = error;
    return { input, code, text, certain: true };
  }
}
