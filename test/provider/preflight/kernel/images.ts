/** Kernel images for tests: the headers are as in a real one, the rest is filler. */

import { gzipSync } from "node:zlib";

/** The content of an unpacked kernel: a banner, and a configuration where one is given. */
export function unpackedKernel(release: string, configuration?: string): Buffer {
  const embedded =
    configuration === undefined
      ? []
      : [Buffer.from("IKCFG_ST"), gzipSync(configuration), Buffer.from("IKCFG_ED")];
  return Buffer.concat([
    Buffer.alloc(1000),
    Buffer.from(`Linux version %s (format text)\0Linux version ${release} (builder@host) #1\0`),
    ...embedded,
    Buffer.alloc(1000),
  ]);
}

/** A bzImage (Documentation/arch/x86/boot.rst); the payload is given packed, with its size behind it unless it is gzip. */
export function bzImage(
  release: string,
  payload: Buffer,
  options: { bits?: 32 | 64; protocol?: number } = {},
): Buffer {
  const setupSectors = 3;
  const setup = Buffer.alloc((setupSectors + 1) * 512);
  setup.writeUInt8(setupSectors, 0x1f1);
  setup.write("HdrS", 0x202, "latin1");
  setup.writeUInt16LE(options.protocol ?? 0x20f, 0x206);
  setup.writeUInt16LE(0x300, 0x20e);
  setup.writeUInt16LE(options.bits === 32 ? 0 : 1, 0x236);
  setup.writeUInt32LE(0x100, 0x248);
  setup.writeUInt32LE(payload.length, 0x24c);
  setup.write(`${release} (builder@host) #1 SMP\0`, 0x500, "latin1");
  return Buffer.concat([setup, Buffer.alloc(0x100), payload, Buffer.alloc(64)]);
}

/** A vmlinux with one loaded segment (elf(5)). */
export function vmlinux(content: Buffer, machine = 62): Buffer {
  const head = Buffer.alloc(0x1000);
  head.writeUInt32BE(0x7f454c46, 0);
  head.writeUInt8(2, 4);
  head.writeUInt8(1, 5);
  head.writeUInt16LE(2, 16);
  head.writeUInt16LE(machine, 18);
  head.writeBigUInt64LE(64n, 32);
  head.writeUInt16LE(56, 54);
  head.writeUInt16LE(1, 56);
  head.writeUInt32LE(1, 64);
  head.writeBigUInt64LE(0x1000n, 64 + 8);
  head.writeBigUInt64LE(BigInt(content.length), 64 + 32);
  return Buffer.concat([head, content]);
}

/** An arm64 Image (Documentation/arch/arm64/booting.rst). */
export function arm64Image(content: Buffer): Buffer {
  const head = Buffer.alloc(64);
  head.write("ARM\x64", 0x38, "latin1");
  return Buffer.concat([head, content]);
}
