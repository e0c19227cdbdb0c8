/** What keeps this host from running a guest: each thing once per process, however many VMs ask. */

import type { QemuBackend } from "../backends/backend.js";
import { MicroVmError } from "../errors.js";
import type { Finding } from "./finding.js";
import { chooseAccelerator, usableQemu } from "./host.js";
import { hostMemory, memoryFinding, type HostMemory } from "./memory.js";

const backends = new Map<string, Promise<readonly Finding[]>>();
let memory: Promise<HostMemory | undefined> | undefined;

/**
 * Looks at the hypervisor, the accelerator and the memory of this host.
 *
 * @param memoryMiB Memory of the guest; absent while it is not known.
 */
export async function hostFindings(
  backend: QemuBackend,
  memoryMiB: number | undefined,
): Promise<readonly Finding[]> {
  const key = JSON.stringify(backend);
  let found = backends.get(key);
  if (found === undefined) {
    found = backendFindings(backend);
    backends.set(key, found);
  }
  memory ??= hostMemory();
  const [ofBackend, host] = await Promise.all([found, memory]);
  const ofMemory = memoryMiB === undefined || host === undefined ? undefined : memoryFinding(memoryMiB, host);
  return ofMemory === undefined ? ofBackend : [...ofBackend, ofMemory];
}

async function backendFindings(backend: QemuBackend): Promise<readonly Finding[]> {
  const found = await Promise.all([
    findingOf(() => usableQemu(backend)),
    findingOf(() => chooseAccelerator(backend.accelerator)),
  ]);
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
