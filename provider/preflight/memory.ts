/** Whether this host can give a guest its memory. Linux only: what /proc tells (proc_meminfo(5), overcommit-accounting.rst). */

import { readFile } from "node:fs/promises";
import { systemCodeOf } from "../errors.js";
import type { Finding } from "./finding.js";

/** Memory of a host, in MiB. */
export interface HostMemory {
  readonly totalMiB: number;
  readonly swapMiB: number;
  /** What can be had now without swapping. */
  readonly availableMiB: number;
  /** What all programs together may ask for; absent where that is not bounded by a number. */
  readonly commitLimitMiB?: number;
  /** `vm.overcommit_memory`: 0 refuses what the host could never give, 1 nothing, 2 what passes the commit limit. */
  readonly overcommit: 0 | 1 | 2;
}

/** The memory of this host; undefined where /proc does not tell. */
export async function hostMemory(proc = "/proc"): Promise<HostMemory | undefined> {
  let text: string;
  let mode: string;
  try {
    text = await readFile(`${proc}/meminfo`, "utf8");
    mode = await readFile(`${proc}/sys/vm/overcommit_memory`, "utf8");
  } catch (error) {
    if (systemCodeOf(error) === undefined) throw error;
    return undefined; // another system, or a sandbox without it: nothing is said of memory then
  }
  const field = (name: string): number =>
    Math.floor(Number(new RegExp(`^${name}: +(\\d+) kB`, "m").exec(text)?.[1] ?? Number.NaN) / 1024);
  const overcommit = mode.trim() === "1" ? 1 : mode.trim() === "2" ? 2 : 0;
  const totalMiB = field("MemTotal");
  const availableMiB = field("MemAvailable");
  if (Number.isNaN(totalMiB) || Number.isNaN(availableMiB)) return undefined;
  const commitLimitMiB = overcommit === 2 ? field("CommitLimit") : undefined;
  return { totalMiB, swapMiB: field("SwapTotal") || 0, availableMiB, commitLimitMiB, overcommit };
}

/**
 * What is wrong with a guest of this size here. It is certain where the kernel refuses QEMU the memory when it starts
 * (`__vm_enough_memory` in mm/util.c); otherwise the guest starts, and may be killed when it uses what it was promised.
 */
export function memoryFinding(memoryMiB: number, host: HostMemory): Finding | undefined {
  const { totalMiB, swapMiB, availableMiB, overcommit } = host;
  const most = overcommit === 2 ? (host.commitLimitMiB ?? Number.NaN) : totalMiB + swapMiB;
  const at = { input: "memoryMiB", code: "host-unusable" } as const;
  if (memoryMiB > most) {
    const what = overcommit === 2 ? "may give its programs" : "has, swap included";
    return {
      ...at,
      certain: overcommit !== 1,
      text: `expected at most the ${most} MiB that this host ${what}, got ${memoryMiB}. Give the guest less`,
    };
  }
  if (memoryMiB <= availableMiB) return undefined;
  return {
    ...at,
    certain: false,
    text: `this host has ${availableMiB} MiB free of ${totalMiB}, got ${memoryMiB}: a guest that uses them all may be killed. Give it less, or free memory`,
  };
}
