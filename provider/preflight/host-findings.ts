/** What keeps this host from running a guest: each thing once per process, however many VMs ask. */

import type { BackendOptions } from "../backends/backend.js";
import { MicroVmError } from "../errors.js";
import { assertKvm, usableCloudHypervisor } from "./cloud-hypervisor.js";
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
  backend: BackendOptions,
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

async function backendFindings(backend: BackendOptions): Promise<readonly Finding[]> {
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
