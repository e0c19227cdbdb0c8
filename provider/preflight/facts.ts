/**
 * What the world must tell before a boot configuration can be made: digests of the files, what the kernel can do by
 * itself, the server's address. One finding per input; what cannot be known yet is left out.
 */

import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { InputValues } from "../spec/schema.js";
import type { SpecResult } from "../spec/check.js";
import type { DerivedInputs } from "../spec/checked.js";
import type { Failure } from "../spec/validate.js";
import { MicroVmError } from "../errors.js";
import { noticeText } from "../notices.js";
import { digestOf } from "../host/boot-files.js";
import { ensureInitramfs } from "../host/initramfs/initramfs.js";
import { stampOf } from "../host/initramfs/stamp.js";
import { resolveServer } from "./address.js";
import { inBurst } from "./burst.js";
import type { Finding } from "./finding.js";
import { type BootNeed, bootNeeds, describeLack } from "./kernel/boot-needs.js";
import { GUEST_PROCESSOR, type Processor } from "./kernel/image.js";
import { inspectKernel } from "./kernel/inspect.js";

/** A root disk above this size is told by size and time, not by content. */
const LARGE_IMAGE_BYTES = 2 ** 30;

/** Derived values of which the world decides. */
export type FactValues = {
  -readonly [
    Name in "kernelSha256" | "initramfsSha256" | "generatedInitramfs" | "rootfsDigest" | "nfsServerAddress"
  ]?: DerivedInputs[Name];
};

/** What was found out, and what stands in the way. */
export interface GatheredFacts {
  readonly facts: FactValues;
  readonly failures: readonly Failure[];
  /**
   * What stands in the way of making the VM again, and is no concern of one that stays as it is: a kernel file that has
   * gone since the VM was made.
   */
  readonly sourceFailures: readonly Failure[];
  /** What of the kernel would keep the guest from booting. */
  readonly findings: readonly Finding[];
  /** The kernel's processor, where it could be told. */
  readonly processor?: Processor;
  readonly notices: readonly string[];
}

/** What is known already. */
export interface KnownBefore {
  /** Checked inputs of the last up; empty when there was none. */
  readonly olds: Readonly<Record<string, unknown>>;
  /** Digests that the engine fed back, because the person ignores their changes. */
  readonly kept: FactValues;
  /** The VM, as notices name it. */
  readonly vm: string;
  readonly stateDirectory: string;
}

/** Gathers the facts of all inputs that are known. */
export async function gatherFacts(result: SpecResult, before: KnownBefore): Promise<GatheredFacts> {
  const { values } = result;
  const wrong = new Set(result.failures.map((failure) => failure.input.split(".")[0]));
  const facts: FactValues = {};
  const failures: Failure[] = [];
  const sourceFailures: Failure[] = [];
  const usable = <Name extends keyof InputValues>(name: Name): InputValues[Name] | undefined =>
    wrong.has(name) || result.unknown.has(name) ? undefined : values[name];

  /** Of a file or server that has gone since the VM was made, the VM keeps what is known. */
  const find = async <Name extends keyof FactValues>(
    input: keyof InputValues,
    fact: Name,
    ask: () => Promise<FactValues[Name]>,
  ): Promise<void> => {
    try {
      facts[fact] = before.kept[fact] ?? (await ask());
    } catch (error) {
      if (!(error instanceof MicroVmError)) throw error;
      const failure = { input, code: error.code, text: error.text };
      const old = before.olds[fact] as FactValues[Name];
      if (old !== undefined && before.olds[input] === values[input]) {
        facts[fact] = old;
        sourceFailures.push(failure);
      } else {
        failures.push(failure);
      }
    }
  };

  const kernel = usable("kernel");
  const initramfs = usable("initramfs");
  const rootfs = usable("rootfs");
  const nfsServer = usable("nfsServer");
  const { stateDirectory } = before;
  const digest = async (path: string, input: string): Promise<string> => {
    // Whatever keeps it from being looked at, the digest's own error says.
    const stamp = await stampOf(path).catch(() => undefined);
    return await inBurst(JSON.stringify(["digest", path, stamp, input, stateDirectory]), () =>
      digestOf(path, input, stateDirectory),
    );
  };
  await Promise.all([
    kernel && find("kernel", "kernelSha256", () => digest(kernel, "kernel")),
    initramfs && find("initramfs", "initramfsSha256", () => digest(initramfs, "initramfs")),
    rootfs && find("rootfs", "rootfsDigest", () => imageDigest(rootfs, before.stateDirectory)),
    nfsServer &&
      find("nfsServer", "nfsServerAddress", () => resolveServer(nfsServer, inUseOf(before.olds, nfsServer))),
  ]);
  const found: GatheredFacts = { facts, failures, sourceFailures, findings: [], notices: [] };
  if (kernel === undefined || failures.length > 0) return found;
  const keepsKernel =
    before.kept.kernelSha256 !== undefined || sourceFailures.some((failure) => failure.input === "kernel");
  const ofKernel = keepsKernel
    ? keptInitramfs(result, before.olds)
    : await kernelFacts(result, facts, before);
  return {
    ...found,
    ...ofKernel,
    facts: { ...facts, ...ofKernel.facts },
    sourceFailures: [...sourceFailures, ...(ofKernel.sourceFailures ?? [])],
  };
}

/** The initramfs that was made for a kernel which cannot, or need not, be looked at again. */
function keptInitramfs({ values }: SpecResult, olds: KnownBefore["olds"]): Partial<GatheredFacts> {
  if (values.initramfs !== undefined || typeof olds["generatedInitramfs"] !== "string") return {};
  const { initramfsSha256, generatedInitramfs } = olds as FactValues;
  return { facts: { initramfsSha256, generatedInitramfs } };
}

function inUseOf(olds: KnownBefore["olds"], server: string): string | undefined {
  const address = olds["nfsServerAddress"];
  return olds["nfsServer"] === server && typeof address === "string" ? address : undefined;
}

async function imageDigest(path: string, stateDirectory: string): Promise<string> {
  const stats = await stat(path).catch(() => undefined);
  if (stats?.isFile() && stats.size > LARGE_IMAGE_BYTES) {
    return `size:${stats.size},mtime:${stats.mtime.toISOString()}`;
  }
  return digestOf(path, "rootfs", stateDirectory);
}

/** Whether the kernel boots by itself, and the initramfs that is made when it does not. */
async function kernelFacts(
  result: SpecResult,
  { kernelSha256 }: FactValues,
  before: KnownBefore,
): Promise<Partial<GatheredFacts>> {
  const { values, unknown } = result;
  const decisive = ["useNfsRoot", "ip", "initramfs", "backend", "statefulDiskMiB"] as const;
  const { backend } = values;
  if (decisive.some((name) => unknown.has(name)) || backend === undefined) return {};
  const machine = machineOf(backend);
  if (machine === undefined) return {};
  const isOld = before.olds["kernelSha256"] === kernelSha256;
  const { vm } = before;
  try {
    const path = values.kernel ?? "";
    const kernel = await inBurst(JSON.stringify(["kernel", path, kernelSha256]), () => inspectKernel(path));
    const { processor } = kernel;
    if (processor !== GUEST_PROCESSOR) return { findings: [wrongProcessor(processor, backend.type)] };
    if (before.kept.initramfsSha256 !== undefined) {
      return { processor, ...keptInitramfs(result, before.olds) };
    }
    const disks = (values.statefulDiskMiB ?? 0) > 0;
    const verdict = bootNeeds(kernel, {
      root: values.useNfsRoot === true ? "nfs" : "disk",
      dhcp: values.ip === "dhcp",
      machine,
      disks: disks || values.useNfsRoot !== true,
      overlay: disks && values.useNfsRoot !== true,
      ownInitramfs: values.initramfs !== undefined,
      size: sizeOf(values),
    });
    // Of a VM that runs already, the remarks have been read.
    const isQuiet = values.preflight === "off" || isOld;
    const notices = isQuiet
      ? []
      : verdict.remarks.map((remark) => noticeText("kernel-remark", { vm, remark }));
    switch (verdict.kind) {
      case "boots":
        return { processor, notices };
      case "unknown": {
        const { reason } = verdict;
        if (!isQuiet) notices.push(noticeText("kernel-unchecked", { vm, reason }));
        return { processor, notices };
      }
      case "cannot": {
        const lacks = verdict.missing.map(describeLack).join("; ");
        const text = `cannot boot this root: ${lacks}. Use a kernel that has them`;
        return { processor, findings: [{ input: "kernel", code: "kernel-unusable", text, certain: true }] };
      }
      case "initramfs": {
        const { modules, optionalModules } = verdict;
        const cacheDirectory = join(before.stateDirectory, ".cache");
        const { realPath, release } = kernel;
        const made = await inBurst(
          JSON.stringify([
            "initramfs",
            realPath,
            release,
            processor,
            modules,
            optionalModules,
            cacheDirectory,
          ]),
          () => ensureInitramfs({ facts: kernel, modules, optionalModules, cacheDirectory }),
        );
        if (!isQuiet && verdict.because.length > 0) {
          const lacks = verdict.because.map(({ option, is }) => `${option} is ${is}`).join(", ");
          notices.push(noticeText("initramfs-made", { vm, lacks }));
        }
        return {
          processor,
          facts: { initramfsSha256: made.sha256, generatedInitramfs: made.path },
          notices,
        };
      }
      default:
        return verdict satisfies never;
    }
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    const failure = { input: "kernel", code: error.code, text: error.text };
    return isOld
      ? { ...keptInitramfs(result, before.olds), sourceFailures: [failure] }
      : { failures: [failure] };
  }
}

/** What of its size asks something of the kernel. */
function sizeOf({ vcpus = 1, maxVcpus = vcpus, memoryMiB = 0, maxMemoryMiB = memoryMiB }: InputValues) {
  return { severalVcpus: maxVcpus > 1, moreVcpus: maxVcpus > vcpus, moreMemory: maxMemoryMiB > memoryMiB };
}

/** The machine that a kernel is to boot on here; undefined where that is another host's. */
function machineOf(backend: NonNullable<InputValues["backend"]>): BootNeed["machine"] | undefined {
  switch (backend.type) {
    case "qemu":
      return backend.machine;
    case "cloud-hypervisor":
      return "cloud-hypervisor";
    case "arrakis":
      return undefined;
    default:
      return backend satisfies never;
  }
}

function wrongProcessor(processor: Processor, backend: string): Finding {
  return {
    input: "kernel",
    code: "kernel-unusable",
    certain: true,
    text: `is a kernel for ${processor}, and the ${backend} back end runs ${GUEST_PROCESSOR} guests. Give one for ${GUEST_PROCESSOR}`,
  };
}
