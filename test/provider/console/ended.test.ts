import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { hasGuestEnded, tellsOfEnd } from "../../../provider/console/ended.js";

const PANIC = [
  "guest: ready",
  "[    9.101010] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
  "[    9.101234] CPU: 0 PID: 1 Comm: false Not tainted 6.1.192-nfs-root #1",
  "[    9.101300] Call Trace:",
  "[    9.101400]  <TASK>",
  "[    9.102000] ---[ end Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100 ]---",
];

describe("a console tells that its guest has ended", () => {
  it.each([
    ["by a panic", PANIC],
    ["by a panic of which the trace is still being written", PANIC.slice(0, 4)],
    ["by a panic in the middle of a time stamp", [...PANIC.slice(0, 4), "[    9.10"]],
    ["by a panic right after a time stamp", [...PANIC.slice(0, 4), "[    9.101400][    T1]"]],
    ["by a halt", ["guest: bye", "[   12.345678] reboot: System halted"]],
    ["by a power-off that leaves its VMM", ["[   12.345678] reboot: Power down", "", "  "]],
    [
      "by a halt in place of a power-off",
      ["[    1.5] x", "[   12.345678] reboot: Power off not available: System halted instead"],
    ],
    ["by a panic in a line that user space had begun", [...PANIC.slice(0, 1), `login: ${PANIC[1] ?? ""}`]],
    [
      "by a panic of a kernel without time stamps",
      ["Kernel panic - not syncing: x", "Call Trace:", "---[ end Kernel panic - not syncing: x ]---"],
    ],
    ["by a halt of a kernel without time stamps", ["init: bye", "reboot: System halted"]],
  ])("%s", (_how, lines) => {
    expect(tellsOfEnd(lines)).toBe(true);
  });

  it.each([
    ["while it runs", ["[    1.000000] Run /sbin/init as init process", "guest: ready"]],
    ["by nothing", []],
    [
      "by the echo of a command line that holds the words",
      ["[    0.000000] Command line: console=ttyS0 x=Kernel panic - not syncing reboot: System halted"],
    ],
    [
      "by the echo of an unknown word",
      [
        '[    0.5] Unknown kernel command line parameters "reboot: System halted", will be passed to user space.',
      ],
    ],
    [
      "by words that user space prints",
      ["[    1.000000] Run /sbin/init as init process", "Kernel panic - not syncing: just kidding"],
    ],
    ["by the log of another boot that user space shows", [...PANIC, "guest: that was the log of yesterday"]],
    ["by the log of another boot before a prompt", [...PANIC, "[root@guest ~]# "]],
    ["by an old halt before a line of user space", ["[   12.345678] reboot: System halted", "guest: ready"]],
    ["by a trace of something else", ["[    3.0] x", "[    3.000000] ---[ end trace 0000000000000000 ]---"]],
  ])("but not %s", (_how, lines) => {
    expect(tellsOfEnd(lines)).toBe(false);
  });
});

describe("the end of a console log", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "microvm-ended-"));
  });
  afterEach(async () => await rm(folder, { recursive: true }));

  it("is all that is read of it", async () => {
    const path = join(folder, "console.log");
    const noise = "guest: noise of no meaning\r\n".repeat(400_000);
    await writeFile(path, `${noise}${PANIC.join("\r\n")}\r\n`);
    const before = performance.now();
    expect(await hasGuestEnded(path)).toBe(true);
    expect(performance.now() - before).toBeLessThan(1000);
  });

  it("may begin in the middle of a line, which then means nothing", async () => {
    const path = join(folder, "console.log");
    const line = `guest: said "${PANIC[1] ?? ""}"`;
    await writeFile(path, line.padEnd(64 * 1024 + line.indexOf("["), "."));
    expect(await hasGuestEnded(path)).toBe(false);
  });

  it("tells of nothing where there is none", async () => {
    expect(await hasGuestEnded(join(folder, "none.log"))).toBe(false);
  });
});
