import { spawnSync } from "node:child_process";
import { resolve } from "node:path";

import { describe, expect, it } from "vitest";

import { whyNoArrakis } from "../../lab/arrakis.js";
import { whyNoNamespace } from "../../lab/namespace.js";

const reason = whyNoArrakis() ?? whyNoNamespace();
const REPOSITORY = resolve(__dirname, "../../..");

describe.skipIf(reason !== undefined)(
  `the back end and the real Arrakis${reason === undefined ? "" : ` (skipped: ${reason})`}`,
  () => {
    // It deletes every tap that it finds, and hides a folder of programs: both in namespaces of their own.
    it("agree, in a network and a mount namespace", () => {
      const script = resolve(__dirname, "arrakis/real-arrakis.ts");
      const inside = ["--net", "--mount", process.execPath, "--import", "tsx", script];
      const { status, stdout } = spawnSync("unshare", inside, {
        cwd: REPOSITORY,
        encoding: "utf8",
        stdio: ["ignore", "pipe", "inherit"],
      });
      expect(stdout.trim().split("\n")).toEqual([
        "created: running, proved, 10.20.1.2",
        "a second create of the name: name-taken",
        "paused: paused",
        "resumed: running",
        "stopped: stopped",
        "booted again: running, proved",
        "another root: boot-failed, removed",
        "a disk root that NFS covers: boot-failed, removed",
        "a kernel that does not boot: server-failed, removed",
        "a silent guest that must show its root: boot-timeout, removed",
        "removed: gone",
        "removed again: gone",
      ]);
      expect(status).toBe(0);
    });
  },
);
