import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { cpioArchive, type CpioEntry } from "../../../../provider/host/initramfs/cpio.js";
import { isOnPath } from "../../../lab/programs.js";

const entries: CpioEntry[] = [
  { type: "directory", path: "dev", mode: 0o755 },
  { type: "character-device", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
  { type: "file", path: "init", mode: 0o755, content: Buffer.from("12345") },
  { type: "link", path: "sh", target: "init" },
];

describe("a newc archive", () => {
  const missing = isOnPath("cpio") ? "" : " (skipped: cpio is not installed)";

  it.skipIf(missing)(`is read by cpio, with types, modes, sizes, owner and time${missing}`, () => {
    const listing = execFileSync("cpio", ["-itvn", "--quiet"], {
      input: cpioArchive(entries),
      env: { ...process.env, TZ: "UTC" },
    });
    const lines = listing.toString().trimEnd().split("\n");
    expect(lines.map((line) => line.replaceAll(/ +/g, " "))).toEqual([
      "drwxr-xr-x 2 0 0 0 Jan 1 1970 dev",
      "crw------- 1 0 0 5, 1 Jan 1 1970 dev/console",
      "-rwxr-xr-x 1 0 0 5 Jan 1 1970 init",
      "lrwxrwxrwx 1 0 0 4 Jan 1 1970 sh -> init",
    ]);
  });

  it.skipIf(missing)(`keeps contents of any length${missing}`, () => {
    for (const length of [0, 1, 2, 3, 4, 5, 4096]) {
      const content = Buffer.alloc(length, "x");
      const archive = cpioArchive([
        { type: "file", path: "f".repeat((length % 4) + 1), mode: 0o644, content },
      ]);
      expect(execFileSync("cpio", ["-i", "--to-stdout", "--quiet"], { input: archive })).toEqual(content);
    }
  });

  it("does not depend on the order of its entries", () => {
    const [first, ...others] = entries;
    expect(cpioArchive([...others, ...(first ? [first] : [])])).toEqual(cpioArchive(entries));
  });
});
