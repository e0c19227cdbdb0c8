/** Network namespaces for tests that make bridges, taps and rules: nothing of this machine's own network is touched. */

import { execFileSync, spawnSync } from "node:child_process";
import { join, resolve } from "node:path";

import { isOnPath } from "./programs.js";

const INSIDE = "MICROVM_LAB_NETWORK_NAMESPACE";
const REPOSITORY = resolve(__dirname, "../..");

/** Why no network namespace can be had here; undefined when one can. */
export function whyNoNamespace(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root, for a network namespace";
  const missing = ["unshare", "ip", "nft"].find((program) => !isOnPath(program));
  if (missing !== undefined) return `${missing} is not installed`;
  return spawnSync("unshare", ["--net", "true"]).status === 0
    ? undefined
    : "no network namespace can be made";
}

/** Whether this process is in a namespace of {@link runInNamespace}; its loopback is up then. */
export function isInNamespace(): boolean {
  if (process.env[INSIDE] !== "1") return false;
  execFileSync("ip", ["link", "set", "lo", "up"]);
  return true;
}

/** The environment of a process that is started in a namespace of its own, so that it knows. */
export function namespaceEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, [INSIDE]: "1" };
}

/**
 * Runs a test file in a network namespace of its own, and shows what it says.
 *
 * @returns Its exit status.
 */
export function runInNamespace(file: string): number | null {
  const vitest = join(REPOSITORY, "node_modules/vitest/vitest.mjs");
  const run = spawnSync("unshare", ["--net", process.execPath, vitest, "run", "--project", "vm", file], {
    cwd: REPOSITORY,
    env: {
      ...namespaceEnvironment(),
      VITEST: undefined,
      VITEST_WORKER_ID: undefined,
      VITEST_POOL_ID: undefined,
    },
    stdio: ["ignore", "inherit", "inherit"],
  });
  return run.status;
}
