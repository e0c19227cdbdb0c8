/** The busybox of the host that goes into an initramfs: it has to be static and of the guest's processor. */

import { readFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { MicroVmError, systemCodeOf } from "../../errors.js";
import type { Processor } from "../../preflight/kernel/image.js";
import { readElfProgram } from "./elf.js";
import { stampOf } from "./stamp.js";

/** A program that was found. */
export interface Busybox {
  /** Absolute path. */
  readonly path: string;
  readonly content: Buffer;
  /** {@link stampOf} the file before it was read. */
  readonly stamp: string;
}

const usualPlaces = [
  "/bin/busybox",
  "/usr/bin/busybox",
  "/usr/local/bin/busybox",
  "/usr/lib/initramfs-tools/bin/busybox",
];

/**
 * Finds a static busybox for a processor: on PATH, then in the usual places.
 *
 * @param searchPath Folders as in the environment variable PATH.
 * @throws MicroVmError `host-unusable`, input `kernel`: none was found; the text says why each one does not do.
 */
export async function findBusybox(
  processor: Processor,
  searchPath: string = process.env["PATH"] ?? "",
  places: readonly string[] = usualPlaces,
): Promise<Busybox> {
  const onPath = searchPath.split(delimiter).filter((folder) => folder.startsWith("/"));
  const candidates = new Set([...onPath.map((folder) => join(folder, "busybox")), ...places]);
  const unfit: string[] = [];
  for (const path of candidates) {
    const found = await readProgram(path);
    if (found === undefined) continue;
    const program = readElfProgram(found.content);
    if (program === undefined) unfit.push(`${path} is not a 64-bit ELF program`);
    else if (!program.isStatic) unfit.push(`${path} is dynamically linked`);
    else if (program.processor !== processor) unfit.push(`${path} is not for ${processor}`);
    else return { path, ...found };
  }
  const found = unfit.length === 0 ? "none was found" : unfit.join(", ");
  throw new MicroVmError(
    "host-unusable",
    `a kernel with NFS or virtio as modules needs an initramfs, and that needs a static busybox for ${processor}; ${found}. ` +
      `Install it (Debian, Ubuntu: apt-get install busybox-static), or give an initramfs of your own`,
    { input: "kernel" },
  );
}

async function readProgram(path: string): Promise<Omit<Busybox, "path"> | undefined> {
  try {
    const stamp = await stampOf(path);
    return stamp === undefined ? undefined : { stamp, content: await readFile(path) };
  } catch (error) {
    // Not there, or not for us to read: the next place may have one.
    const code = systemCodeOf(error) ?? "";
    if (["ENOENT", "EACCES", "ELOOP"].includes(code)) return undefined;
    throw error;
  }
}
