/** What a kernel can boot on this package's back ends: each kind of machine with each kind of root. */

import { MicroVmError } from "../../errors.js";
import { findBusybox } from "../../host/initramfs/busybox.js";
import { findModules, readModules } from "../../host/initramfs/modules.js";
import { bootNeeds, type BootVerdict, describeLack } from "./boot-needs.js";
import { GUEST_PROCESSOR, type Processor } from "./image.js";
import type { KernelFacts } from "./inspect.js";
import type { BootNeed } from "./options.js";

/** One kind of boot. */
export interface BootKind {
  readonly backend: "qemu" | "cloud-hypervisor" | "arrakis";
  /** The machine of QEMU; the other two have one. */
  readonly machine?: "q35" | "microvm";
  /** `overlay`: a stateful disk over a read-only root disk. */
  readonly root: "nfs" | "disk" | "overlay";
  /** Whether the guest is told its address or asks a DHCP server; the same for both on a disk root. */
  readonly address: "static" | "dhcp" | "any";
}

/** What a kernel can do for one kind of boot. */
export interface Ability extends BootKind {
  /** `initramfs`: with one that is made from its modules, which are here. */
  readonly boots: "yes" | "initramfs" | "no" | "unknown";
  /** Why not, or why not by itself; a sentence each. */
  readonly reasons: readonly string[];
  /** What will be missed after the boot; a sentence each. */
  readonly remarks: readonly string[];
}

const machines = [
  { backend: "qemu", machine: "q35" },
  { backend: "qemu", machine: "microvm" },
  { backend: "cloud-hypervisor" },
  { backend: "arrakis" },
] as const satisfies readonly Pick<BootKind, "backend" | "machine">[];

const roots = [
  { root: "nfs", address: "static" },
  { root: "nfs", address: "dhcp" },
  { root: "disk", address: "any" },
  { root: "overlay", address: "any" },
] as const satisfies readonly Pick<BootKind, "root" | "address">[];

/**
 * Holds a kernel against every kind of boot. Where one needs an initramfs, the modules and the busybox for it are looked for, as a
 * boot would.
 */
export async function abilitiesOf(facts: KernelFacts): Promise<readonly Ability[]> {
  const kinds = machines
    .flatMap((machine) => roots.map((root): BootKind => ({ ...machine, ...root })))
    .filter(({ backend, root }) => backend !== "arrakis" || root !== "disk"); // its disk root always has a stateful one
  return await Promise.all(kinds.map((kind) => abilityOf(facts, kind)));
}

/** What of its abilities counts as booting an NFS root: the best that any back end can do with it. */
export function nfsRootOf(abilities: readonly Ability[]): Ability["boots"] {
  const found = new Set(abilities.filter(({ root }) => root === "nfs").map(({ boots }) => boots));
  return (["yes", "initramfs", "unknown"] as const).find((boots) => found.has(boots)) ?? "no";
}

async function abilityOf(facts: KernelFacts, kind: BootKind): Promise<Ability> {
  if (facts.processor !== GUEST_PROCESSOR) {
    return { ...kind, boots: "no", reasons: [wrongProcessor(facts.processor)], remarks: [] };
  }
  const verdict = bootNeeds(facts, needOf(kind));
  const { remarks } = verdict;
  switch (verdict.kind) {
    case "boots":
      return { ...kind, boots: "yes", reasons: [], remarks };
    case "unknown":
      return { ...kind, boots: "unknown", reasons: [verdict.reason], remarks };
    case "cannot":
      return { ...kind, boots: "no", reasons: verdict.missing.map(describeLack), remarks };
    case "initramfs": {
      const because = verdict.because.map(describeLack);
      // Arrakis lays its disks over each other by an initramfs of its own, which has no modules.
      if (kind.backend === "arrakis" && because.length === 0) {
        return { ...kind, boots: "yes", reasons: [], remarks };
      }
      const obstacle = await whyNoInitramfs(facts, verdict, kind);
      if (obstacle === undefined) return { ...kind, boots: "initramfs", reasons: because, remarks };
      const help = `an initramfs made from its modules would help, but ${obstacle}`;
      return { ...kind, boots: "no", reasons: [...because, help], remarks };
    }
    default:
      return verdict satisfies never;
  }
}

function needOf({ backend, machine, root, address }: BootKind): BootNeed {
  const grows = backend === "cloud-hypervisor";
  return {
    // Arrakis runs Cloud Hypervisor.
    machine: machine ?? "cloud-hypervisor",
    root: root === "nfs" ? "nfs" : "disk",
    dhcp: address === "dhcp",
    disks: root !== "nfs",
    overlay: root === "overlay",
    ownInitramfs: false,
    size: { severalVcpus: true, moreVcpus: grows, moreMemory: grows },
  };
}

/** Why no initramfs is made for a boot, in words; undefined when it can be. */
async function whyNoInitramfs(
  facts: KernelFacts,
  { modules, optionalModules }: Extract<BootVerdict, { kind: "initramfs" }>,
  { backend }: BootKind,
): Promise<string | undefined> {
  if (backend === "arrakis") return "none is made for an Arrakis server";
  try {
    await findBusybox(facts.processor);
    if (modules.length + optionalModules.length > 0) {
      await readModules(await findModules(facts), modules, optionalModules);
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    return `it cannot be made here: ${error.text}`;
  }
}

/** Why a kernel for another processor boots nowhere here. */
function wrongProcessor(processor: Processor): string {
  return `it is a kernel for ${processor}, and the back ends run ${GUEST_PROCESSOR} guests`;
}
