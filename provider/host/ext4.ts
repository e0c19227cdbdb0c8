/** The size of an ext4 file system, read from its superblock. */

import type { FileHandle } from "node:fs/promises";

// Documentation/filesystems/ext4/super.rst: the superblock begins at byte 1024 and is little-endian.
const SUPERBLOCK = 1024;
const SUPERBLOCK_BYTES = 1024;
const MAGIC = 0xef53;
const INCOMPAT_64BIT = 0x80;

/** How many bytes of its device an ext4 (or ext2, ext3) file system takes; undefined when there is none. */
export async function ext4Bytes(device: FileHandle): Promise<number | undefined> {
  const { buffer, bytesRead } = await device.read(
    Buffer.alloc(SUPERBLOCK_BYTES),
    0,
    SUPERBLOCK_BYTES,
    SUPERBLOCK,
  );
  if (bytesRead < SUPERBLOCK_BYTES || buffer.readUInt16LE(0x38) !== MAGIC) return undefined;
  const hasHighBits = (buffer.readUInt32LE(0x60) & INCOMPAT_64BIT) !== 0;
  const blocks = buffer.readUInt32LE(0x4) + (hasHighBits ? buffer.readUInt32LE(0x150) * 2 ** 32 : 0);
  return blocks * 2 ** (10 + buffer.readUInt32LE(0x18));
}
