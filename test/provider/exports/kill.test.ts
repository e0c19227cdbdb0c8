/** SIGKILL of the provider's process at each step of a create: the next `up` has one server, and no database is locked out. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import * as agentFs from "../../../provider/agentfs.js";
import { exportName } from "../../../provider/exports/inputs.js";
import { exportPaths } from "../../../provider/exports/paths.js";
import { defaultStateDirectory } from "../../../provider/host/state-directory.js";
import * as nfsExport from "../../../provider/nfs.js";
import type { Values } from "../../../provider/plan/fields.js";
import { probeNfs } from "../../../provider/preflight/nfs/index.js";
import { whyNoNfsServer } from "../../lab/nfs.js";
import { whyNoAgentFs } from "../../lab/programs.js";
import { makeBase, newsOf, useExportBed } from "./export-bed.js";

const bed = useExportBed();

/** What a create has come to, as another process sees it. */
interface Seen {
  readonly record: string;
  readonly folder: string;
  readonly servers: readonly number[];
}

const steps: Readonly<Record<string, (seen: Seen) => boolean>> = {
  "the name is claimed": ({ record }) => record !== "",
  "the database is being made": ({ folder }) =>
    existsSync(join(folder, ".agentfs")) && readdirSync(join(folder, ".agentfs")).length > 0,
  "the start is recorded": ({ record }) => /"phase": "(?:started|ready)"/.test(record),
  "a process is there": ({ servers }) => servers.length > 0,
  "the process is recorded": ({ record }) => record.includes('"server":'),
  "it is ready": ({ record }) => record.includes('"phase": "ready"'),
};

const kinds = {
  AgentFs: { provider: agentFs, reason: whyNoAgentFs(), names: Object.keys(steps) },
  NfsExport: {
    provider: nfsExport,
    reason: whyNoNfsServer(),
    names: Object.keys(steps).filter((name) => !name.includes("database")),
  },
} as const;

/** Servers of this test's folder: each has a path in it among its arguments. */
function serversIn(folder: string): number[] {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    const [program = "", ...args] = commandLineOf(name).split("\0");
    const isServer = /(?:agentfs|ganesha\.nfsd)$/.test(program) && args.some((arg) => arg.startsWith(folder));
    return isServer ? [Number(name)] : [];
  });
}

function commandLineOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return ""; // it has ended
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // not there yet
  }
}

async function killAt(type: string, inputs: Values, isReached: (seen: Seen) => boolean): Promise<void> {
  const name = exportName((inputs["owner"] as { urn: string }).urn);
  const { record } = exportPaths(defaultStateDirectory(), name);
  const program = join(__dirname, "creating-process.ts");
  const child = spawn(process.execPath, ["--import", "tsx", program, type, JSON.stringify(inputs)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let printed = "";
  child.stdout?.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  const exit = once(child, "exit");
  const { folder } = bed;
  while (!isReached({ record: textOf(record), folder, servers: serversIn(folder) })) {
    expect(printed).not.toContain("failed");
    if (printed.includes("done")) break;
    await delay(1);
  }
  child.kill("SIGKILL");
  await exit;
}

for (const [type, { provider, reason, names }] of Object.entries(kinds)) {
  const title = `a create of ${type} whose process is killed${reason === undefined ? "" : ` (skipped: ${reason})`}`;
  describe.skipIf(reason !== undefined)(title, () => {
    it.each(names)("when %s is done by the next up, with one server, and leaves none", async (step) => {
      const base = await makeBase(bed);
      const given = type === "AgentFs" ? { agentId: "one", baseDirectory: base } : { directory: base };
      const { inputs } = await provider.check({}, newsOf(type as "AgentFs" | "NfsExport", bed, given));
      await killAt(type, inputs, steps[step] ?? (() => false));

      const { id, outs } = await provider.create(inputs);
      expect(serversIn(bed.folder)).toEqual([outs["pid"]]);
      const finding = await probeNfs({
        server: "127.0.0.1",
        port: Number(outs["nfsPort"]),
        mountPort: Number(outs["nfsMountPort"]),
        path: String(outs["nfsPath"]),
      });
      expect(finding.kind).toBe("init-missing");
      await provider.delete(id, outs);
      expect(serversIn(bed.folder)).toEqual([]);
      expect(await readdir(join(defaultStateDirectory(), ".exports"))).toEqual([]);
      if (type === "AgentFs") {
        expect(await readdir(join(bed.folder, ".agentfs"))).toEqual(["one.db", "one.db-wal"]);
      }
    });
  });
}
