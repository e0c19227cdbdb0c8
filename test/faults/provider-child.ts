/** Starts provider processes ahead of their use, gives them an order, and kills them. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";

import type { Order, Resource } from "./provider-process.js";

/** How an operation ended: as the engine would have seen it. */
export interface Ended {
  readonly how: "done" | "failed" | "killed";
  /** What a finished operation gives the state. */
  readonly resource?: Resource;
  readonly error?: string;
}

/** One provider process. */
export class ProviderChild {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  #ended: Ended | undefined;
  #ready: () => void = () => undefined;
  readonly #isReady = new Promise<void>((resolve) => (this.#ready = resolve));

  constructor(env: NodeJS.ProcessEnv) {
    const program = join(__dirname, "provider-process.ts");
    this.#child = spawn(process.execPath, ["--import", "tsx", program], {
      env,
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#child.stdin?.on("error", () => undefined); // it was killed before it had read its order
    if (this.#child.stdout === null) throw new Error("the process has no standard output");
    createInterface({ input: this.#child.stdout }).on("line", (line) => this.#onLine(line));
  }

  /** Gives the order, once the process is ready to begin at once. */
  async order(order: Order): Promise<void> {
    await this.#isReady;
    this.#child.stdin?.write(`${JSON.stringify(order)}\n`);
  }

  /** Whether the process has printed a line that begins so. */
  hasSaid(word: string): boolean {
    return this.#lines.some((line) => line.startsWith(word));
  }

  /** Whether the operation has ended by itself. */
  get isOver(): boolean {
    return this.#ended !== undefined;
  }

  /** Waits until the operation has ended by itself, then ends the process. */
  async untilOver(seconds: number): Promise<Ended> {
    const deadline = performance.now() + seconds * 1000;
    while (this.#ended === undefined && this.#child.exitCode === null && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return await this.kill();
  }

  /** SIGKILL. */
  async kill(): Promise<Ended> {
    const ended = this.#ended ?? { how: "killed" };
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const exit = once(this.#child, "exit");
      this.#child.kill("SIGKILL");
      await exit;
    }
    return ended;
  }

  #onLine(line: string): void {
    this.#lines.push(line);
    if (line === "ready") this.#ready();
    if (!line.startsWith("end ")) return;
    const { resource, error } = JSON.parse(line.slice(4)) as { resource?: Resource; error?: string };
    this.#ended = error === undefined ? { how: "done", resource } : { how: "failed", error };
  }
}
