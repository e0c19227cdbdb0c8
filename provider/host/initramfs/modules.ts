/**
 * The modules of a kernel: where they are, and which others each of them needs.
 *
 * Dependencies are read from the modules themselves (their .modinfo section), not from modules.dep: a package that
 * was unpacked but not installed has none, and nobody need run depmod.
 */

import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { MicroVmError } from "../../errors.js";
import { leadsNowhere } from "../storage.js";
import type { KernelFacts } from "../../preflight/kernel/inspect.js";
import { CannotUnpack, type Compression, unpack } from "../../preflight/kernel/unpack.js";
import { elfSection } from "./elf.js";
import { stampOf } from "./stamp.js";

/** The folder of a kernel's modules, and what is in it. */
export interface ModuleFolder {
  /** Absolute path. */
  readonly path: string;
  /** Absolute path of modules.order, and {@link stampOf} it before it was read. */
  readonly orderPath: string;
  readonly orderStamp: string;
  /** Path below the folder by name (`virtio_net`), as the kernel's build listed it. */
  readonly files: ReadonlyMap<string, string>;
  /** Names of modules that are built into the kernel. */
  readonly builtIn: ReadonlySet<string>;
}

/** One module that goes into an initramfs. */
export interface Module {
  /** Name with underscores, as lsmod prints it. */
  readonly name: string;
  /** Absolute path of the file it was read from. */
  readonly path: string;
  /** {@link stampOf} the file before it was read. */
  readonly stamp: string;
  /** The module, unpacked. */
  readonly content: Buffer;
  /** Whether the boot fails when it cannot be loaded. */
  readonly required: boolean;
}

/** Endings of module files, with their compression (Documentation/kbuild, CONFIG_MODULE_COMPRESS_*). */
const endings: readonly (readonly [string, Compression | undefined])[] = [
  ["", undefined],
  [".xz", "xz"],
  [".zst", "zstd"],
  [".gz", "gzip"],
];

/**
 * Folders in which the modules of a kernel may be: as in a package that was unpacked around the image, as on a
 * running system, beside the image.
 */
export function moduleFolderCandidates(facts: KernelFacts): string[] {
  if (facts.release === undefined) return [];
  const imageFolder = join(facts.realPath, "..");
  const aroundImage = join(imageFolder, "..");
  const places = [
    join(aroundImage, "lib", "modules"),
    join(aroundImage, "usr", "lib", "modules"),
    join(imageFolder, "lib", "modules"),
    "/lib/modules",
    "/usr/lib/modules",
  ];
  const folders = places.map((place) => join(place, facts.release ?? ""));
  // Fedora keeps the image in the folder of its modules.
  return basename(imageFolder) === facts.release ? [imageFolder, ...folders] : folders;
}

/**
 * Finds the modules of a kernel.
 *
 * @throws MicroVmError `kernel-unusable`, input `kernel`: none of the places has them.
 */
export async function findModules(facts: KernelFacts): Promise<ModuleFolder> {
  const candidates = moduleFolderCandidates(facts);
  for (const path of candidates) {
    const orderPath = join(path, "modules.order");
    const orderStamp = await stampOf(orderPath);
    if (orderStamp === undefined) continue;
    const order = await readFile(orderPath, "utf8");
    const files = new Map(
      lines(order).map((line) => [moduleName(line), line.replace(/\.(?:xz|zst|gz)$/, "")]),
    );
    const builtIn = new Set(lines((await readIfThere(join(path, "modules.builtin"))) ?? "").map(moduleName));
    return { path, orderPath, orderStamp, files, builtIn };
  }
  const found =
    facts.release === undefined
      ? "and the image does not tell its release, so its modules cannot be found"
      : `and its modules were not found (a folder with modules.order in ${candidates.join(", ")})`;
  throw new MicroVmError(
    "kernel-unusable",
    `${facts.path} needs modules for this boot, ${found}; install or unpack them there (Debian: the package ` +
      `linux-image-${facts.release ?? "RELEASE"}), give an initramfs of your own, or use a kernel with these drivers built in`,
    { input: "kernel" },
  );
}

/**
 * Reads modules and all that they depend on, each after its dependencies.
 *
 * @param names Modules that the boot needs.
 * @param optional Modules that are taken where they exist.
 * @throws MicroVmError `kernel-unusable`, input `kernel`: a module that is needed is missing, damaged, or packed
 * with a program that this host has not got.
 */
export async function readModules(
  folder: ModuleFolder,
  names: readonly string[],
  optional: readonly string[],
): Promise<Module[]> {
  const ordered = new Map<string, Module>();
  const visit = async (name: string, required: boolean, from: readonly string[]): Promise<void> => {
    const known = ordered.get(name);
    if (known !== undefined && required && !known.required) ordered.set(name, { ...known, required });
    if (known?.required || (known !== undefined && !required)) return;
    if (from.includes(name) || folder.builtIn.has(name)) return;
    if (!folder.files.has(name) && !required) return;
    const module = known ?? { ...(await readModule(folder, name)), required };
    const information = moduleInformation(module.content);
    const path = [...from, name];
    // A soft dependency makes a module work better or at all, but modprobe loads the module without it, too.
    for (const soft of information.softBefore) await visit(inFolder(folder, soft), false, path);
    for (const hard of information.depends) await visit(hard, required, path);
    if (!ordered.has(name)) ordered.set(name, module);
    for (const soft of information.softAfter) await visit(inFolder(folder, soft), false, path);
  };
  for (const name of names) await visit(canonical(name), true, []);
  for (const name of optional) await visit(canonical(name), false, []);
  return [...ordered.values()];
}

/**
 * A soft dependency may name an algorithm, as ext4's `crypto-crc32c`, and not a module. The module with the
 * implementation for every processor is `crc32c_generic` (crypto/Makefile in the kernel).
 */
function inFolder(folder: ModuleFolder, name: string): string {
  if (folder.files.has(name) || folder.builtIn.has(name)) return name;
  return `${name.replace(/^crypto_/, "")}_generic`;
}

/** What a module says of itself. */
export interface ModuleInformation {
  readonly depends: readonly string[];
  /** Soft dependencies to load before and after it (`softdep=pre: … post: …`, modprobe.d(5)). */
  readonly softBefore: readonly string[];
  readonly softAfter: readonly string[];
}

/** Reads the .modinfo section of a module: texts `key=value`, each ended by a zero byte. */
export function moduleInformation(content: Buffer): ModuleInformation {
  const texts = elfSection(content, ".modinfo")?.toString("latin1").split("\0") ?? [];
  const values = (key: string): string[] =>
    texts.filter((text) => text.startsWith(`${key}=`)).map((text) => text.slice(key.length + 1));
  const softBefore: string[] = [];
  const softAfter: string[] = [];
  for (const value of values("softdep")) {
    let into = softBefore;
    for (const word of value.split(/\s+/).filter((text) => text !== "")) {
      if (word === "pre:") into = softBefore;
      else if (word === "post:") into = softAfter;
      else into.push(canonical(word));
    }
  }
  const depends = values("depends").flatMap((value) => value.split(",").filter((name) => name !== ""));
  return { depends: depends.map(canonical), softBefore, softAfter };
}

async function readModule(folder: ModuleFolder, name: string): Promise<Omit<Module, "required">> {
  const file = folder.files.get(name);
  if (file === undefined) {
    throw new MicroVmError(
      "kernel-unusable",
      `the module ${name} is needed, and ${folder.path} does not list it`,
      {
        input: "kernel",
      },
    );
  }
  const base = join(folder.path, file);
  for (const [ending, compression] of endings) {
    const path = base + ending;
    const stamp = await stampOf(path);
    if (stamp === undefined) continue;
    const bytes = await readFile(path);
    try {
      return {
        name,
        path,
        stamp,
        content: compression === undefined ? bytes : await unpack(bytes, compression),
      };
    } catch (error) {
      if (!(error instanceof CannotUnpack)) throw error;
      throw new MicroVmError("kernel-unusable", `the module ${path} is needed, but ${error.message}`, {
        input: "kernel",
        cause: error,
      });
    }
  }
  throw new MicroVmError(
    "kernel-unusable",
    `the module ${name} is needed, and ${base} is missing (also as .xz, .zst and .gz); install the kernel's package again`,
    { input: "kernel" },
  );
}

/** `kernel/drivers/net/virtio-net.ko.xz` is the module `virtio_net`. */
function moduleName(path: string): string {
  return canonical(basename(path).replace(/\.ko(?:\.\w+)?$/, ""));
}

/** Module names are compared with underscores (modprobe(8)). */
function canonical(name: string): string {
  return name.replaceAll("-", "_");
}

function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (leadsNowhere(error)) return undefined;
    throw error;
  }
}
