/** ELF files for tests: a header, one program header, the name of a dynamic loader. */

/** What the file says of itself. */
export interface ElfFields {
  /** `e_machine`: 62 is x86_64, 183 aarch64, 3 i386. */
  readonly machine: number;
  /** 1: relocatable, 2: executable (default), 3: shared object. */
  readonly type?: number;
  /** Content of PT_INTERP. */
  readonly interpreter?: string;
  /** 32 or 64 (default). */
  readonly bits?: 32 | 64;
  readonly bigEndian?: boolean;
}

/** The bytes of such a file. */
export function elfFile({ machine, type = 2, interpreter, bits = 64, bigEndian = false }: ElfFields): Buffer {
  const is64 = bits === 64;
  const [headerSize, entrySize] = is64 ? [64, 56] : [52, 32];
  const name = Buffer.from(interpreter === undefined ? "" : `${interpreter}\0`);
  const file = Buffer.alloc(Math.max(128, headerSize + entrySize + name.length));
  const uint16 = (value: number, at: number): unknown =>
    bigEndian ? file.writeUInt16BE(value, at) : file.writeUInt16LE(value, at);
  const uint32 = (value: number, at: number): unknown =>
    bigEndian ? file.writeUInt32BE(value, at) : file.writeUInt32LE(value, at);
  const word = (value: number, at: number): unknown => {
    if (!is64) return uint32(value, at);
    return bigEndian ? file.writeBigUInt64BE(BigInt(value), at) : file.writeBigUInt64LE(BigInt(value), at);
  };
  file.write("\x7fELF", "latin1");
  file[4] = is64 ? 2 : 1;
  file[5] = bigEndian ? 2 : 1;
  file[6] = 1;
  uint16(type, 16);
  uint16(machine, 18);
  word(headerSize, is64 ? 32 : 28);
  uint16(entrySize, is64 ? 54 : 42);
  uint16(1, is64 ? 56 : 44);
  uint32(interpreter === undefined ? 1 : 3, headerSize);
  word(headerSize + entrySize, headerSize + (is64 ? 8 : 4));
  word(name.length, headerSize + (is64 ? 32 : 16));
  name.copy(file, headerSize + entrySize);
  return file;
}
