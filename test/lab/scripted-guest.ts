/**
 * A guest that only says what a Linux guest would say on its serial console, and then halts, resets or powers off. It runs where
 * KVM runs no Linux (a host that is itself a guest), so that all but the guest is real there.
 */

/** How the guest ends: it waits for ever, resets itself by the keyboard controller, or powers off by ACPI. */
export type ScriptedEnd = "halt" | "reset" | "off";

/** As the kinds of test/lab/guest.ts, as far as the console shows them; `mute` never comes as far as its root. */
export type ScriptedKind = "complete" | "deaf" | "silent" | "exits" | "powers-off" | "mute";

/** What the guest of a kind says on the way to its root, and how it ends. */
export function scriptOf(
  kind: ScriptedKind,
  cmdline: string,
  rootType: "nfs" | "disk",
): [string, ScriptedEnd] {
  const fileSystem = rootType === "nfs" ? "nfs" : "ext4";
  const booting = [
    "[    0.000000] Linux version 0 (scripted guest)",
    `[    0.000000] Command line: ${cmdline}`,
    ...Array.from(
      { length: 20 },
      (_, line) => `[    0.${String(line).padStart(6, "0")}] scripted guest: line ${line}`,
    ),
  ];
  const mounted = [
    `[    0.100000] VFS: Mounted root (${fileSystem} filesystem) on device 0:13.`,
    "[    0.200000] Run /sbin/init as init process",
  ];
  switch (kind) {
    case "mute":
      return [textOf(booting), "halt"];
    case "silent":
      return [textOf([...booting, ...mounted]), "halt"];
    case "exits": {
      const panic = "[    0.300000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100";
      return [textOf([...booting, ...mounted, "guest: giving up", panic]), "reset"];
    }
    case "powers-off":
      return [textOf([...booting, ...mounted, "guest: ready", "guest: goes off"]), "off"];
    case "complete":
    case "deaf":
      return [textOf([...booting, ...mounted, "guest: ready"]), "halt"];
    default:
      return kind satisfies never;
  }
}

function textOf(lines: readonly string[]): string {
  return lines.map((line) => `${line}\r\n`).join("");
}

const BASE = 0x10_0000;
const ELF_HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;

/** The image of a kernel that prints a text to the first serial port: an ELF file with a PVH entry (xen/include/public/elfnote.h). */
export function scriptedKernel(text: string, end: ScriptedEnd): Buffer {
  const code = program(text, end);
  const note = Buffer.concat([u32(4), u32(8), u32(18), Buffer.from("Xen\0"), u64(BASE)]);
  const noteAt = ELF_HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES;
  const codeAt = Math.ceil((noteAt + note.length) / 16) * 16;
  const header = Buffer.concat([
    Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    u16(2), // an executable
    u16(62), // of x86-64
    u32(1),
    u64(BASE),
    u64(ELF_HEADER_BYTES),
    u64(0),
    u32(0),
    ...[ELF_HEADER_BYTES, PROGRAM_HEADER_BYTES, 2, 0, 0, 0].map(u16),
  ]);
  const load = segment({ type: 1, flags: 5, at: codeAt, address: BASE, bytes: code.length, align: 16 });
  const notes = segment({ type: 4, flags: 4, at: noteAt, address: 0, bytes: note.length, align: 4 });
  const head = Buffer.concat([header, load, notes, note]);
  return Buffer.concat([head, Buffer.alloc(codeAt - head.length), code]);
}

/** 32-bit code, as PVH starts it. */
function program(text: string, end: ScriptedEnd): Buffer {
  const ends: Readonly<Record<ScriptedEnd, readonly number[]>> = {
    halt: [],
    reset: [0xb0, 0xfe, 0xe6, 0x64], // mov al, 0xfe; out 0x64, al
    off: [0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee], // mov dx, 0x600; mov al, 0x34 (S5); out dx, al
  };
  const tail = [...ends[end], 0xfa, 0xf4, 0xeb, 0xfd]; // cli; hlt; jmp -3
  const loopBytes = 17;
  const textAt = BASE + loopBytes + tail.length;
  const loop = [
    [0xbe, ...u32(textAt)], // mov esi, text
    [0x66, 0xba, 0xf8, 0x03], // mov dx, 0x3f8
    [0xac, 0x84, 0xc0, 0x74, 0x03], // lodsb; test al, al; jz +3
    [0xee, 0xeb, 0xf8], // out dx, al; jmp -8
  ].flat();
  return Buffer.concat([Buffer.from([...loop, ...tail]), Buffer.from(`${text}\0`)]);
}

function segment(of: {
  readonly type: number;
  readonly flags: number;
  readonly at: number;
  readonly address: number;
  readonly bytes: number;
  readonly align: number;
}): Buffer {
  const [address, bytes] = [u64(of.address), u64(of.bytes)];
  return Buffer.concat([
    u32(of.type),
    u32(of.flags),
    u64(of.at),
    address,
    address,
    bytes,
    bytes,
    u64(of.align),
  ]);
}

function u16(value: number): Buffer {
  const buffer = Buffer.alloc(2);
  buffer.writeUInt16LE(value);
  return buffer;
}

function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value);
  return buffer;
}

function u64(value: number): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(BigInt(value));
  return buffer;
}
