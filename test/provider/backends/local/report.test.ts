import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { bootError, SHOWN_LINES } from "../../../../provider/backends/local/report.js";
import { temporaryFolder } from "../../host/folders.js";

async function messageFor(console: readonly string[]): Promise<string> {
  const folder = await temporaryFolder();
  const logs = { consoleLog: join(folder, "console.log"), vmmLog: join(folder, "vmm.log") };
  await writeFile(logs.consoleLog, console.map((line) => `${line}\r\n`).join(""));
  return (await bootError({ code: "boot-failed", what: "it failed" }, logs)).message;
}

const numbered = (count: number, text: string) => Array.from({ length: count }, (_, n) => `${text} ${n}`);

describe("the report of a failed boot", () => {
  it("shows the last lines of the console", async () => {
    const message = await messageFor(numbered(30, "line"));
    expect(message).toContain(`The last ${SHOWN_LINES} lines of the guest's console:\n  | line 10\n`);
    expect(message).toMatch(/\| line 29$/);
  });

  it("shows what led to a panic rather than its call trace", async () => {
    const panic = "[    9.1] Kernel panic - not syncing: Attempted to kill init!";
    const message = await messageFor(["guest: giving up", panic, ...numbered(60, "[    9.2]  frame")]);
    expect(message).toMatch(/\| guest: giving up\n {2}\| \[ {4}9\.1\] Kernel panic - not syncing: [^\n]*$/);
  });

  it("says that the console is empty", async () => {
    expect(await messageFor([])).toBe("it failed.\nThe guest's console is empty.");
  });
});
