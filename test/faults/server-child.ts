/** The REST server as a process of its own, to be killed. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";

const PROGRAM = join(__dirname, "../../provider/cli/restserver.ts");

export class ServerChild {
  private constructor(
    readonly child: ChildProcess,
    readonly url: string,
  ) {}

  /**
   * Starts it, and returns when it listens.
   *
   * @param args Words of its command line.
   * @param onLine Called with each line of its log.
   */
  static async start(args: readonly string[], onLine: (line: string) => void): Promise<ServerChild> {
    const child = spawn(process.execPath, ["--import", "tsx", PROGRAM, ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const lines = createInterface({ input: child.stdout });
    const url = await new Promise<string>((resolve, reject) => {
      child.once("exit", () => reject(new Error("the server ended before it listened")));
      lines.on("line", (line) => {
        onLine(line);
        const [found] = /http:\/\/127\.0\.0\.1:[0-9]+/.exec(line) ?? [];
        if (found !== undefined && line.includes("listening")) resolve(found);
      });
    });
    return new ServerChild(child, url);
  }

  /** @returns When it has ended. */
  async end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, "exit");
    this.child.kill(signal);
    await ended;
  }
}
