/** The little that is read from ELF files (elf(5)): processor, interpreter, a section by name. */

import { elfMachines, type Processor } from "../../preflight/kernel/image.js";

/** What an ELF program is. */
export interface ElfProgram {
  /** Absent for a processor that this package does not know. */
  readonly processor: Processor | undefined;
  /** Whether it needs no dynamic loader (it has no PT_INTERP). */
  readonly isStatic: boolean;
}

/** Reads what kind of program a 64-bit little-endian ELF file is; `undefined` for anything else. */
export function readElfProgram(bytes: Buffer): ElfProgram | undefined {
  if (!isElf64(bytes)) return undefined;
  const tableOffset = Number(bytes.readBigUInt64LE(32));
  const entrySize = bytes.readUInt16LE(54);
  const count = bytes.readUInt16LE(56);
  let isStatic = true;
  for (let index = 0; index < count; index += 1) {
    const entry = tableOffset + index * entrySize;
    if (entry + 4 > bytes.length) return undefined;
    if (bytes.readUInt32LE(entry) === 3) isStatic = false;
  }
  return { processor: elfMachines.get(bytes.readUInt16LE(18)), isStatic };
}

/** The content of a section of a 64-bit little-endian ELF file, `undefined` where there is none of that name. */
export function elfSection(bytes: Buffer, name: string): Buffer | undefined {
  if (!isElf64(bytes)) return undefined;
  const tableOffset = Number(bytes.readBigUInt64LE(40));
  const entrySize = bytes.readUInt16LE(58);
  const count = bytes.readUInt16LE(60);
  if (tableOffset + count * entrySize > bytes.length) return undefined;
  const content = (index: number): Buffer => {
    const entry = tableOffset + index * entrySize;
    const offset = Number(bytes.readBigUInt64LE(entry + 24));
    return bytes.subarray(offset, offset + Number(bytes.readBigUInt64LE(entry + 32)));
  };
  const namesIndex = bytes.readUInt16LE(62);
  if (namesIndex >= count) return undefined;
  const names = content(namesIndex);
  for (let index = 0; index < count; index += 1) {
    const start = bytes.readUInt32LE(tableOffset + index * entrySize);
    if (names.toString("latin1", start, names.indexOf(0, start)) === name) return content(index);
  }
  return undefined;
}

function isElf64(bytes: Buffer): boolean {
  return bytes.length >= 64 && bytes.readUInt32BE(0) === 0x7f454c46 && bytes[4] === 2 && bytes[5] === 1;
}
