/** The real AgentFS for the bench: a new database over a directory, served on loopback by a process that dies with this one. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { probeNfs } from "../../provider/preflight/nfs/index.js";
import { freePort } from "./nfs.js";
import { agentFsBinary, whyNoAgentFs } from "./programs.js";
import { mustRun } from "./run-process.js";

/** A running server. Its export is `/`, and NFS and MOUNT are on its one port. */
export interface AgentFsServer {
  readonly port: number;
  /** Ends it and removes its database. */
  stop(): Promise<void>;
}

const READY_SECONDS = 20;

/** Makes a database that overlays a directory, and serves it; the directory stays as it is. */
export async function startAgentFs(baseDirectory: string): Promise<AgentFsServer> {
  const binary = agentFsBinary();
  if (binary === undefined) throw new Error(`no AgentFS: ${whyNoAgentFs()}`);
  const folder = await mkdtemp(join(tmpdir(), "lab-agentfs-"));
  await mustRun(binary, ["init", "--base", baseDirectory, "lab"], { cwd: folder });
  const port = await freePort();
  const serve = [binary, "serve", "nfs", join(folder, ".agentfs/lab.db"), "--bind", "127.0.0.1", "--port"];
  const child = spawn("setpriv", ["--pdeathsig", "KILL", ...serve, String(port)], { stdio: "ignore" });
  const exited = once(child, "exit");
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
    await exited;
    await rm(folder, { recursive: true, force: true });
  };
  const target = { server: "127.0.0.1", port, mountPort: port, path: "/" };
  for (const deadline = performance.now() + READY_SECONDS * 1000; ;) {
    const finding = await probeNfs(target);
    if (finding.kind === "ok") return { port, stop };
    if (child.exitCode !== null || child.signalCode !== null || performance.now() > deadline) {
      await stop();
      throw new Error(`agentfs does not serve ${baseDirectory}: ${JSON.stringify(finding)}`);
    }
    await delay(50);
  }
}
