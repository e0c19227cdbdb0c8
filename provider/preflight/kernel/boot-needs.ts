/** What a kernel can do for a boot: alone, with an initramfs made from its modules, or not at all. */

import type { KernelOptions } from "./configuration.js";
import type { KernelFacts } from "./inspect.js";
import {
  aloneRules,
  anyInitramfsRules,
  type BootNeed,
  builtInRules,
  comfortRules,
  driverRules,
  generatedInitramfsRules,
  type OptionRule,
} from "./options.js";

export type { BootNeed } from "./options.js";

/** An option that a kernel lacks for a boot. */
export interface LackingOption {
  /** Name with `CONFIG_`; several that would do, with " or " between them. */
  readonly option: string;
  /** What the kernel has instead of `y`. */
  readonly is: "m" | "not set";
  /** What the option is for: "to mount NFS". */
  readonly reason: string;
}

/** What a kernel can do for a boot. */
export type BootVerdict = {
  /** What will be missed after the boot, in sentences; empty as a rule. */
  readonly remarks: readonly string[];
} & (
  | {
      /** The kernel boots with what it has (and the person's own initramfs, if there is one). */ readonly kind: "boots";
    }
  | {
      /** The kernel boots with an initramfs of ours. */
      readonly kind: "initramfs";
      /** Modules to load, by name, in this order, their dependencies not counted. */
      readonly modules: readonly string[];
      /** Modules to load where they exist and can be loaded; the boot does not depend on them. */
      readonly optionalModules: readonly string[];
      /** Why the kernel cannot do it alone; empty where only the overlay asks for the initramfs. */
      readonly because: readonly LackingOption[];
    }
  | {
      /** Not with any initramfs of ours. */ readonly kind: "cannot";
      readonly missing: readonly LackingOption[];
    }
  | {
      /** The kernel's configuration is not known: it may or may not boot. */ readonly kind: "unknown";
      readonly reason: string;
    }
);

/** Decides what a kernel can do for a boot. Pure. */
export function bootNeeds(facts: KernelFacts, need: BootNeed): BootVerdict {
  if (!facts.configuration.found) {
    return { kind: "unknown", reason: facts.configuration.reason, remarks: [] };
  }
  const { options } = facts.configuration;
  const lacks = (rules: readonly OptionRule[], accept: "y" | "y or m"): LackingOption[] =>
    rules.filter((rule) => rule.when(need)).flatMap((rule) => lackOf(rule, options, accept) ?? []);

  const neverBoots = [...lacks(builtInRules, "y"), ...lacks(pvhRule(facts), "y")];
  const comfort = lacks(comfortRules, "y");
  if (need.ownInitramfs) {
    const missing = [...neverBoots, ...lacks(anyInitramfsRules, "y")];
    return missing.length > 0 ? { kind: "cannot", missing, remarks: [] } : { kind: "boots", remarks: [] };
  }

  const because = lacks([...driverRules, ...aloneRules], "y");
  if (neverBoots.length === 0 && because.length === 0 && !need.overlay) {
    return { kind: "boots", remarks: comfort.map(remark) };
  }
  const missing = [
    ...neverBoots,
    ...lacks(anyInitramfsRules, "y"),
    ...lacks([...driverRules, ...generatedInitramfsRules], "y or m"),
  ];
  if (missing.length > 0) return { kind: "cannot", missing, remarks: [] };
  return {
    kind: "initramfs",
    modules: modulesOf([...driverRules, ...generatedInitramfsRules], need, options),
    optionalModules: modulesOf(comfortRules, need, options),
    because,
    remarks: comfort.filter((lack) => lack.is === "not set").map(remark),
  };
}

/** One line for the person per option that is lacking: `CONFIG_NFS_FS is m: needed to mount NFS`. */
export function describeLack(lack: LackingOption): string {
  return `${lack.option} is ${lack.is}: needed ${lack.reason}`;
}

/** A vmlinux is entered by the PVH way (QEMU's -kernel looks for its ELF note). */
function pvhRule(facts: KernelFacts): OptionRule[] {
  if (facts.format !== "vmlinux" || facts.processor !== "x86_64") return [];
  return [
    { anyOf: ["PVH"], reason: "to be started as a vmlinux (a bzImage does not need it)", when: () => true },
  ];
}

function lackOf(rule: OptionRule, options: KernelOptions, accept: "y" | "y or m"): LackingOption | undefined {
  const values = new Set(rule.anyOf.map((name) => options.get(name)));
  if (values.has("y")) return undefined;
  const isModule = values.has("m");
  if (accept === "y or m" && isModule && rule.module !== undefined) return undefined;
  const option = rule.anyOf.map((name) => `CONFIG_${name}`).join(" or ");
  return { option, is: isModule ? "m" : "not set", reason: rule.reason };
}

function modulesOf(rules: readonly OptionRule[], need: BootNeed, options: KernelOptions): string[] {
  return rules
    .filter((rule) => rule.when(need) && !rule.anyOf.some((name) => options.get(name) === "y"))
    .flatMap((rule) =>
      rule.module !== undefined && rule.anyOf.some((name) => options.get(name) === "m") ? rule.module : [],
    );
}

function remark(lack: LackingOption): string {
  return `the kernel has ${lack.option} ${lack.is === "m" ? "only as a module" : "not set"}, which is needed ${lack.reason}`;
}
