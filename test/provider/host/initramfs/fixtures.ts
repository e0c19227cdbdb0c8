/** Module trees and facts for tests of the initramfs. */

import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { KernelFacts } from "../../../../provider/preflight/kernel/inspect.js";

export const RELEASE = "6.1.999-test";

/** Facts of a kernel at `folder/boot/vmlinuz`, as after unpacking a package to `folder`. */
export function factsIn(folder: string, facts: Partial<KernelFacts> = {}): KernelFacts {
  const path = join(folder, "boot", "vmlinuz");
  return {
    path,
    realPath: path,
    processor: "x86_64",
    format: "bzImage",
    release: RELEASE,
    configuration: { found: false, reason: "a test" },
    ...facts,
  };
}

function section(name: number, offset: number, size: number): Buffer {
  const entry = Buffer.alloc(64);
  entry.writeUInt32LE(name, 0);
  entry.writeBigUInt64LE(BigInt(offset), 24);
  entry.writeBigUInt64LE(BigInt(size), 32);
  return entry;
}

/** The least ELF file with a .modinfo section (elf(5)) of these texts. */
export function moduleFile(texts: readonly string[]): Buffer {
  const information = Buffer.from(texts.map((text) => `${text}\0`).join(""));
  const names = Buffer.from("\0.modinfo\0.shstrtab\0");
  const head = Buffer.alloc(64);
  head.writeUInt32BE(0x7f454c46, 0);
  head.writeUInt8(2, 4);
  head.writeUInt8(1, 5);
  head.writeUInt16LE(1, 16);
  head.writeUInt16LE(62, 18);
  head.writeBigUInt64LE(BigInt(64 + information.length + names.length), 40);
  head.writeUInt16LE(64, 58);
  head.writeUInt16LE(3, 60);
  head.writeUInt16LE(2, 62);
  return Buffer.concat([
    head,
    information,
    names,
    section(0, 0, 0),
    section(1, 64, information.length),
    section(10, 64 + information.length, names.length),
  ]);
}

/** Writes a module tree as a distribution does: files by their path below `kernel/`, and what is built in. */
export async function writeModuleTree(
  folder: string,
  files: Readonly<Record<string, Buffer>>,
  builtIn: readonly string[] = [],
  order: readonly string[] = Object.keys(files),
): Promise<void> {
  for (const [path, content] of Object.entries(files)) {
    const place = join(folder, "kernel", path);
    await mkdir(dirname(place), { recursive: true });
    await writeFile(place, content);
  }
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "modules.order"), order.map((path) => `kernel/${path}\n`).join(""));
  await writeFile(join(folder, "modules.builtin"), builtIn.map((path) => `kernel/${path}\n`).join(""));
}
