/** Whether the kernel can run a file, from its first bytes: ELF (elf(5)) or `#!` (execve(2)). */

import type { Architecture } from "./finding.js";

/** How much of a file is looked at, in bytes: the kernel reads 256, the dynamic loader's name may stand later. */
export const HEAD_BYTES = 4096;

const SCRIPT_LINE_BYTES = 256;
const ELF_HEADER_BYTES = 64;
const PT_INTERP = 3;
const ET_EXEC = 2;
const ET_DYN = 3;

/** `e_machine` numbers that a kernel of an architecture can run; the second by its 32-bit compatibility, if that is on. */
const RUNNABLE: Readonly<Record<Architecture, readonly number[]>> = { x86_64: [62, 3], aarch64: [183, 40] };

const MACHINES: Readonly<Record<number, string>> = {
  3: "i386",
  8: "mips",
  20: "powerpc",
  21: "ppc64",
  22: "s390x",
  40: "arm",
  62: "x86_64",
  183: "aarch64",
  243: "riscv",
  258: "loongarch64",
};

/** What the first bytes of a file say. */
export type Executable =
  /** `interpreter` is the dynamic loader; absent for a static program. */
  | { readonly format: "elf"; readonly machine: number; readonly interpreter?: string }
  | { readonly format: "script"; readonly interpreter: string }
  /** The kernel answers `Exec format error`; `why` completes "it is …". */
  | { readonly format: "unknown"; readonly why: string };

/** @param head The first {@link HEAD_BYTES} of the file, or all of it when it is shorter. */
export function inspectExecutable(head: Buffer): Executable {
  if (head.length === 0) return { format: "unknown", why: "an empty file" };
  if (head.subarray(0, 2).toString("latin1") === "#!") return inspectScript(head);
  if (head.subarray(0, 4).toString("latin1") === "\x7fELF") return inspectElf(head);
  return { format: "unknown", why: "neither an ELF program nor a script that begins with #!" };
}

/** Whether a kernel of this architecture runs programs of this `e_machine`. */
export function runsOn(architecture: Architecture, machine: number): boolean {
  return RUNNABLE[architecture].includes(machine);
}

/** The name of an `e_machine`: `"aarch64"`, `"machine 9999"`. */
export function machineName(machine: number): string {
  return MACHINES[machine] ?? `machine ${machine}`;
}

function inspectScript(head: Buffer): Executable {
  const text = head.subarray(2, SCRIPT_LINE_BYTES).toString("utf8");
  const line = /^[ \t]*([^\0\n]*)/.exec(text)?.[1] ?? "";
  const interpreter = /^[^ \t]+/.exec(line)?.[0];
  if (interpreter === undefined) return { format: "unknown", why: "a script whose #! names no interpreter" };
  // A name that reaches the end of what the kernel reads may be cut, and the kernel refuses it.
  if (head.length >= SCRIPT_LINE_BYTES && text.trimStart() === interpreter) {
    return {
      format: "unknown",
      why: `a script whose #! line is longer than the kernel's ${SCRIPT_LINE_BYTES} bytes`,
    };
  }
  return { format: "script", interpreter };
}

function inspectElf(head: Buffer): Executable {
  const [wordSize, byteOrder] = [head[4], head[5]];
  const is64 = wordSize === 2;
  const isLittle = byteOrder === 1;
  if (head.length < ELF_HEADER_BYTES || (!is64 && wordSize !== 1) || (!isLittle && byteOrder !== 2)) {
    return { format: "unknown", why: "an ELF file with a damaged header" };
  }
  const uint16 = (offset: number) => (isLittle ? head.readUInt16LE(offset) : head.readUInt16BE(offset));
  const uint32 = (offset: number) => (isLittle ? head.readUInt32LE(offset) : head.readUInt32BE(offset));
  const word = (offset: number) =>
    is64 ? Number(isLittle ? head.readBigUInt64LE(offset) : head.readBigUInt64BE(offset)) : uint32(offset);

  const type = uint16(16);
  if (type !== ET_EXEC && type !== ET_DYN) {
    return { format: "unknown", why: "an ELF file, but no program (an object file or a core dump)" };
  }
  const machine = uint16(18);
  const tableOffset = word(is64 ? 32 : 28);
  const entrySize = uint16(is64 ? 54 : 42);
  const entryCount = uint16(is64 ? 56 : 44);
  for (let index = 0; index < entryCount; index += 1) {
    const entry = tableOffset + index * entrySize;
    if (entrySize < (is64 ? 56 : 32) || entry + entrySize > head.length) break;
    if (uint32(entry) !== PT_INTERP) continue;
    const start = word(entry + (is64 ? 8 : 4));
    const end = start + word(entry + (is64 ? 32 : 16));
    if (end > head.length) break;
    const interpreter = head.subarray(start, end).toString("utf8").split("\0")[0];
    if (interpreter) return { format: "elf", machine, interpreter };
  }
  return { format: "elf", machine };
}
