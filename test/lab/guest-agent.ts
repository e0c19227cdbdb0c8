/** The lab guest's command server (guest-agent/main.go), built by Go once and kept in the cache. */

import { createHash } from "node:crypto";
import { chmod, copyFile, readFile } from "node:fs/promises";
import { join } from "node:path";
import { cached } from "./cache.js";
import { isOnPath } from "./programs.js";
import { mustRun } from "./run-process.js";

const SOURCE = join(__dirname, "guest-agent");

/** Port at which it listens in the guest. */
export const GUEST_AGENT_PORT = 4031;

/** Why there is no command server for guests here, as the reason of a skipped test; undefined when there is one. */
export function whyNoGuestAgent(): string | undefined {
  return isOnPath("go") ? undefined : "go is not installed";
}

/** Puts the command server into a guest's root: its init starts it (see guest/etc/init.d/rcS). */
export async function addGuestAgent(root: string): Promise<void> {
  const place = join(root, "sbin/guest-agent");
  await copyFile(await guestAgent(), place);
  await chmod(place, 0o755);
}

/** Path of the static binary. The first build on a machine compiles Go's own packages as well: half a minute. */
async function guestAgent(): Promise<string> {
  const source = await readFile(join(SOURCE, "main.go"));
  const digest = createHash("sha256").update(source).digest("hex").slice(0, 12);
  const folder = await cached(`guest-agent-${digest}`, async (unfinished) => {
    await mustRun(
      "go",
      [
        "build",
        "-mod=readonly",
        "-buildvcs=false",
        "-trimpath",
        "-ldflags=-s -w",
        "-o",
        join(unfinished, "guest-agent"),
        ".",
      ],
      { cwd: SOURCE, env: { ...process.env, CGO_ENABLED: "0", GOOS: "linux", GOARCH: "amd64" } },
    );
  });
  return join(folder, "guest-agent");
}
