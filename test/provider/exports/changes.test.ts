import { execFile } from "node:child_process";
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { readChanges } from "../../../provider/exports/changes.js";
import { treeOf } from "../../../provider/cli/changes.js";
import { check, create } from "../../../provider/agentfs.js";
import { agentFsBinary, whyNoAgentFs } from "../../lab/programs.js";
import { runMicrovm } from "../cli/microvm-command.js";
import { makeBase, newsOf, useExportBed } from "./export-bed.js";

const bed = useExportBed();
const reason = whyNoAgentFs();

/** A database written as an overlay keeps it, by the package that agents use; in a process of its own, with which its lock ends. */
const WRITER = `
const { AgentFS } = await import("agentfs-sdk");
const { fs } = await AgentFS.open({ path: process.argv[1] });
const read = (path) => fs.readFile(path);
await fs.writeFile("/etc/hosts", "127.0.0.1 localhost\\n10.0.0.1 other\\n");
await fs.writeFile("/etc/motd", "hello\\n");
await fs.writeFile("/etc/cfg/big", Buffer.alloc(3000000, "x"));
await fs.mkdir("/var");
await fs.mkdir("/var/log");
await fs.writeFile("/var/log/a\\u001b[31mb", "x".repeat(5000));
process.exit();
`;

describe("the tree of changes", () => {
  it("shows folders once, with letter, mode and size of what changed, and no control characters", () => {
    const change = { change: "added", kind: "file", mode: "0644" } as const;
    expect(
      treeOf([
        { path: "/etc", change: "modified", kind: "directory", mode: "0700", sizeBytes: 0 },
        { path: "/etc/a\u001b[31m", ...change, sizeBytes: 1 },
        { path: "/etc/b", change: "deleted", kind: "symlink", mode: "0777", sizeBytes: 4 },
        { path: "/var/log/c", ...change, sizeBytes: 3_500_000 },
      ]),
    ).toEqual([
      "/",
      "├── M etc/ (0700)",
      '│   ├── A "a\\u001b[31m" (0644, 1 byte)',
      "│   └── D b@ (0777)",
      "└── var/",
      "    └── log/",
      "        └── A c (0644, 3.3 MiB)",
    ]);
    expect(treeOf([])).toEqual([]);
  });
});

describe("what has changed", () => {
  it("says what is missing: the database, or what is in it", async () => {
    await expect(readChanges(join(bed.folder, "none.db"))).rejects.toThrow(
      /^databasePath: there is no database/,
    );
    const path = join(bed.folder, "text.db");
    await writeFile(path, "text, and no database. ".repeat(999));
    await expect(readChanges(path)).rejects.toThrow(/cannot be read as an AgentFS database/);
  });
});

describe.skipIf(reason !== undefined)(
  `what has changed in a real database${reason === undefined ? "" : ` (skipped: ${reason})`}`,
  () => {
    it("is told while the server runs and after it has ended, without what was only copied", async () => {
      const baseDirectory = await makeBase(bed);
      await symlink("hosts", join(baseDirectory, "etc/link"));
      const path = join(bed.folder, ".agentfs/one.db");
      const run = promisify(execFile);
      const options = { cwd: bed.folder, env: { PATH: process.env["PATH"] } };
      await run(agentFsBinary() ?? "", ["init", "--base", baseDirectory, "one"], options);
      await run(process.execPath, ["--input-type=module", "--eval", WRITER, path]);
      await mkdir(join(baseDirectory, "var"));
      await chmod(join(baseDirectory, "etc/motd"), 0o600);

      const wanted = {
        baseDirectory,
        changes: [
          expect.objectContaining({ path: "/etc/cfg/big", change: "modified", mode: "0644" }),
          { path: "/etc/hosts", change: "modified", kind: "file", mode: "0644", sizeBytes: 35 },
          expect.objectContaining({ path: "/etc/motd", change: "modified" }),
          { path: "/var/log", change: "added", kind: "directory", mode: "0755", sizeBytes: 0 },
          expect.objectContaining({ path: "/var/log/a\u001b[31mb", change: "added", sizeBytes: 5000 }),
        ],
      };
      expect(await readChanges(path)).toEqual(wanted);

      // Equal in kind, mode, size and content is no change; one byte of three million is.
      await chmod(join(baseDirectory, "etc/motd"), 0o644);
      await chmod(join(baseDirectory, "etc/cfg/big"), 0o644);
      const paths = async () => (await readChanges(path)).changes.map((change) => change.path);
      expect(await paths()).toEqual(["/etc/hosts", "/var/log", "/var/log/a\u001b[31mb"]);
      const big = Buffer.alloc(3_000_000, "x");
      big[2_999_999] = 0x79;
      await writeFile(join(baseDirectory, "etc/cfg/big"), big);
      expect(await paths()).toContain("/etc/cfg/big");

      const { inputs } = await check({}, newsOf("AgentFs", bed, { databasePath: path, baseDirectory }));
      await create(inputs);
      expect(await paths()).toContain("/etc/hosts");
      const printed = await runMicrovm(["changes", path]);
      expect(printed.stdout).toMatch(
        /^\/\n├── etc\/\n[^]*M hosts \(0644, 35 bytes\)[^]*\n2 added, 2 modified\n$/,
      );
      expect(JSON.parse((await runMicrovm(["changes", path, "--json"])).stdout)).toMatchObject({
        baseDirectory,
      });
    });
  },
);
