import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it, onTestFinished } from "vitest";

import { isAlive, signalProcess } from "../../../provider/host/process.js";
import { findProgram } from "../../../provider/host/program.js";
import { spawnDetached } from "../../../provider/host/spawn.js";
import { temporaryFolder } from "./folders.js";

const MIB = 1_048_576;

const hasQemu = process.arch === "x64" && has("qemu-system-x86_64");

function has(program: string): boolean {
  try {
    findProgram(program, "");
    return true;
  } catch {
    return false;
  }
}

/** A boot sector that prints 2 MiB of `A` on the first serial port, then `B` on port 0xe9, and halts. */
const TALKATIVE = [
  0xba, 0xf8, 0x03, // mov dx, 0x3f8
  0x66, 0xb9, 0x00, 0x00, 0x20, 0x00, // mov ecx, 0x200000
  0xb0, 0x41, // mov al, 'A'
  0xee, 0x66, 0x49, 0x75, 0xfb, // out dx, al; dec ecx; jnz back to the out
  0xb0, 0x42, 0xe6, 0xe9, // mov al, 'B'; out 0xe9, al
  0xf4, 0xeb, 0xfd, // hlt; jmp back to the hlt
]; // prettier-ignore

describe.skipIf(!hasQemu)("a real QEMU whose guest never stops talking (needs qemu-system-x86_64)", () => {
  it.each(["straight to the file", "through the writer beside a large disk"])(
    "goes on when the console log is full: %s",
    async (how) => {
      const folder = await temporaryFolder();
      const sector = Buffer.alloc(512);
      Buffer.from(TALKATIVE).copy(sector);
      sector.writeUInt16LE(0xaa55, 510);
      await writeFile(join(folder, "disk"), sector);
      const console = join(folder, "console.log");
      const isDirect = how === "straight to the file";
      const options = [
        ["-accel", "tcg", "-nodefaults", "-display", "none", "-m", "16"],
        ["-drive", `file=${join(folder, "disk")},format=raw,if=ide`],
        [
          "-chardev",
          `file,id=console,path=${isDirect ? console : "/dev/stdout"}`,
          "-serial",
          "chardev:console",
        ],
        ["-debugcon", `file:${join(folder, "end")}`],
      ];
      const qemu = await spawnDetached({
        file: "qemu-system-x86_64",
        args: options.flat(),
        log: join(folder, "vmm.log"),
        fileSizeLimitMiB: isDirect ? 1 : 64,
        ...(isDirect ? {} : { console: { file: console, limitMiB: 1 } }),
      });
      onTestFinished(() => {
        signalProcess(qemu, "SIGKILL");
      });
      const end = () => readFile(join(folder, "end"), "utf8").catch(() => "");
      await expect.poll(end, { timeout: 90_000, interval: 200 }).toContain("B");
      expect(isAlive(qemu)).toBe(true);
      expect((await stat(console)).size).toBe(MIB);
    },
    120_000,
  );
});
