/** What the first bytes of a kernel image say: its processor, its format, its release, where its payload is. */

import type { Compression } from "./unpack.js";

/** Processor that a kernel runs on, as `uname -m` names it. */
export type Processor = "x86_64" | "aarch64";

/** What guests of local back ends are, so far. */
export const GUEST_PROCESSOR: Processor = "x86_64";

/** Format of a kernel image. */
export type KernelFormat = "vmlinux" | "bzImage" | "arm64-image" | "arm64-image-gzip";

/** A part of the file that holds the kernel proper. */
export interface Payload {
  /** Offset in the file, in bytes. */
  readonly offset: number;
  /** Length in bytes. */
  readonly length: number;
  readonly compression: Compression | "none" | "unknown";
}

/** What the header of an image says. */
export interface ImageHeader {
  readonly processor: Processor;
  readonly format: KernelFormat;
  /** Release string, as `uname -r` prints it; absent where the header has none (all but bzImage). */
  readonly release?: string;
  readonly payloads: readonly Payload[];
}

/** Bytes of the file that {@link readImageHeader} wants to see (fewer where the file is shorter). */
export const HEADER_LENGTH = 64 * 1024;

/** Processors by their number in an ELF header (`e_machine`, elf(5)). */
export const elfMachines: ReadonlyMap<number, Processor> = new Map([
  [62, "x86_64"],
  [183, "aarch64"],
]);

/** Why a file is no kernel that this package can boot. */
export class NotAKernel extends Error {}

/**
 * Reads the header of a kernel image.
 *
 * @param head The first {@link HEADER_LENGTH} bytes of the file.
 * @param size Size of the file in bytes.
 * @throws NotAKernel with what was found instead.
 */
export function readImageHeader(head: Buffer, size: number): ImageHeader {
  if (head.length >= 64 && head.readUInt32BE(0) === 0x7f454c46) return readElf(head, size);
  if (head.length >= 0x250 && head.toString("latin1", 0x202, 0x206) === "HdrS")
    return readBzImage(head, size);
  if (isArm64Image(head)) {
    const payload: Payload = { offset: 0, length: size, compression: "none" };
    return { processor: "aarch64", format: "arm64-image", payloads: [payload] };
  }
  if (
    head.length >= 8 &&
    head.toString("latin1", 0, 2) === "MZ" &&
    head.toString("latin1", 4, 8) === "zimg"
  ) {
    throw new NotAKernel("it is an EFI zboot image, which has to be unpacked to an arm64 Image first");
  }
  if (compressionOf(head) === "gzip") {
    const payload: Payload = { offset: 0, length: size, compression: "gzip" };
    return { processor: "aarch64", format: "arm64-image-gzip", payloads: [payload] };
  }
  throw new NotAKernel("it is neither a vmlinux (ELF), a bzImage nor an arm64 Image");
}

/** Whether bytes begin an arm64 Image: "ARM\x64" at 0x38 (Documentation/arch/arm64/booting.rst). */
export function isArm64Image(bytes: Buffer): boolean {
  return bytes.length >= 64 && bytes.readUInt32LE(0x38) === 0x644d5241;
}

/** Which compression a payload begins with (lib/decompress.c in the kernel). */
export function compressionOf(bytes: Buffer): Compression | "unknown" {
  const starts: readonly (readonly [Compression, readonly number[]])[] = [
    ["gzip", [0x1f, 0x8b]],
    ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
    ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
    ["lz4", [0x02, 0x21, 0x4c, 0x18]],
    ["bzip2", [0x42, 0x5a, 0x68]],
    ["lzo", [0x89, 0x4c, 0x5a, 0x4f]],
    ["lzma", [0x5d, 0x00, 0x00]],
  ];
  const found = starts.find(([, magic]) => magic.every((byte, index) => bytes[index] === byte));
  return found?.[0] ?? "unknown";
}

/** x86 boot protocol: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header". */
function readBzImage(head: Buffer, size: number): ImageHeader {
  const protocol = head.readUInt16LE(0x206);
  // payload_offset came with 2.08; xloadflags, which tells 64 from 32 bits, with 2.12.
  if (protocol < 0x20c) throw new NotAKernel("it is a bzImage from before Linux 3.8");
  if ((head.readUInt16LE(0x236) & 1) === 0)
    throw new NotAKernel("it is a 32-bit kernel; a 64-bit one is needed");
  const sectors = head.readUInt8(0x1f1) || 4;
  const offset = (sectors + 1) * 512 + head.readUInt32LE(0x248);
  const length = head.readUInt32LE(0x24c);
  if (offset + length > size) throw new NotAKernel("it is a bzImage that was cut short");
  const nameOffset = head.readUInt16LE(0x20e);
  const release = nameOffset === 0 ? undefined : releaseFrom(cString(head, nameOffset + 0x200));
  const found = compressionOf(head.subarray(offset, offset + 8));
  // Every format but gzip is followed by the unpacked size in 4 bytes (scripts/Makefile.lib, size_append).
  const payload: Payload = { offset, length: found === "gzip" ? length : length - 4, compression: found };
  return { processor: "x86_64", format: "bzImage", release, payloads: [payload] };
}

function readElf(head: Buffer, size: number): ImageHeader {
  if (head.readUInt8(4) !== 2 || head.readUInt8(5) !== 1) {
    throw new NotAKernel("it is an ELF file, but not a 64-bit little-endian one");
  }
  const machine = head.readUInt16LE(18);
  const processor = elfMachines.get(machine);
  if (processor === undefined)
    throw new NotAKernel(`it is an ELF file for another processor (machine ${machine})`);
  const payloads = loadSegments(head);
  // ET_EXEC, or ET_DYN where the kernel can be moved (arm64).
  const type = head.readUInt16LE(16);
  if ((type !== 2 && type !== 3) || payloads.length === 0) {
    throw new NotAKernel("it is an ELF file, but nothing in it can be loaded and started");
  }
  if (payloads.some(({ offset, length }) => offset + length > size)) {
    throw new NotAKernel("it is a vmlinux that was cut short");
  }
  return { processor, format: "vmlinux", payloads };
}

/** The parts of an ELF file that are loaded (PT_LOAD, elf(5)). */
function loadSegments(head: Buffer): Payload[] {
  const tableOffset = Number(head.readBigUInt64LE(32));
  const entrySize = head.readUInt16LE(54);
  const payloads: Payload[] = [];
  for (let index = 0; index < head.readUInt16LE(56); index += 1) {
    const entry = tableOffset + index * entrySize;
    if (entry + 56 > head.length) break;
    const length = Number(head.readBigUInt64LE(entry + 32));
    if (head.readUInt32LE(entry) !== 1 || length === 0) continue;
    payloads.push({ offset: Number(head.readBigUInt64LE(entry + 8)), length, compression: "none" });
  }
  return payloads;
}

function cString(bytes: Buffer, offset: number): string {
  const end = bytes.indexOf(0, offset);
  return bytes.toString("latin1", offset, end === -1 ? bytes.length : end);
}

/** `6.1.0-56-cloud-amd64 (debian-kernel@…) #1 SMP …` begins with the release. */
export function releaseFrom(text: string): string | undefined {
  const release = text.split(" ", 1)[0];
  return release !== undefined && /^[0-9][0-9A-Za-z.+~_-]{0,64}$/.test(release) ? release : undefined;
}
