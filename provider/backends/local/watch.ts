/** The wait for a guest's proof: console, end of the VMM, time, the NFS server and the engine, watched side by side. */

import {
  atLine,
  atTail,
  atTime,
  awaited,
  type Claim,
  dueOf,
  type Evidence,
  isDecided,
  unproved,
} from "../../console/evidence.js";
import { followConsole } from "../../console/follow.js";
import type { MicroVmError } from "../../errors.js";
import { noticeText } from "../../notices.js";
import { probeRequestOf } from "../../preflight/export.js";
import {
  type Description,
  describe,
  type NfsFinding,
  probeNfs,
  type ProbeRequest,
} from "../../preflight/nfs/index.js";
import type { Work } from "../backend.js";
import { interrupted } from "./interrupt.js";
import { bootError, type Failure, type Logs } from "./report.js";
import type { Runs } from "./runs.js";

/** What to watch. */
export interface BootWatch extends Work {
  readonly vmName: string;
  readonly claim: Claim;
  /** For messages: `QEMU`. */
  readonly vmmName: string;
  readonly runs: Runs;
  readonly logs: Logs;
  readonly cmdline: string;
  /** How the guest's traffic reaches its NFS server; as on a user network by default. */
  readonly guestNetwork?: ProbeRequest["guestNetwork"];
  readonly timeoutSeconds: number;
}

/** The times of the watch, in milliseconds. */
const NOTICE_INTERVAL = 5_000;
const NOTICE_SLACK = 20;
const PROBE_INTERVAL = 3_000;

// What a running boot cannot recover from, when the server says so twice in a row.
const LASTING = new Set<NfsFinding["kind"]>([
  "refused",
  "program-not-registered",
  "export-unknown",
  "access-denied",
  "rpc-denied",
  "not-a-directory",
  "security-flavor",
  "version-mismatch",
]);

/** How the watch ends, before words are found for it. */
type End = "proved" | "line" | "exit" | "timeout" | "interrupted" | "server";

/** What waits for a guest's proof: {@link untilProved}, or a test's own. */
export type Prover = (watch: BootWatch) => Promise<void>;

/**
 * Returns once the guest has proved its root.
 * @throws MicroVmError `boot-failed`, `boot-timeout`, `nfs-unreachable`, `vmm-failed` or `interrupted`
 */
export async function untilProved(watch: BootWatch): Promise<void> {
  const watcher = new Watcher(watch);
  const error = await watcher.run();
  if (error !== undefined) throw error;
}

class Watcher {
  #evidence: Evidence;
  #lastLine = "";
  #server: { readonly kind: NfsFinding["kind"]; readonly description: Description } | undefined;
  #end: End | undefined;
  #noticed = { text: "", at: -Infinity };
  #due: NodeJS.Timeout | undefined;
  readonly #done = new AbortController();

  constructor(readonly watch: BootWatch) {
    this.#evidence = unproved(watch.claim);
  }

  /** The error that the boot ended with; undefined when it is proved. */
  async run(): Promise<MicroVmError | undefined> {
    const { watch } = this;
    const onAbort = (): void => this.#finish("interrupted");
    watch.signal.addEventListener("abort", onAbort);
    if (watch.signal.aborted) onAbort();
    const timeout = setTimeout(() => this.#finish("timeout"), watch.timeoutSeconds * 1000);
    const reminder = setInterval(() => this.#tell(), NOTICE_INTERVAL);
    try {
      const tasks = [this.#followConsole(), this.#watchServer(), this.#watchEnd()].map((task) =>
        this.#guarded(task),
      );
      // A watcher that fails ends the others; all have ended when this goes on.
      for (const task of await Promise.allSettled(tasks)) {
        if (task.status === "rejected") throw task.reason;
      }
    } finally {
      watch.signal.removeEventListener("abort", onAbort);
      clearTimeout(timeout);
      clearTimeout(this.#due);
      clearInterval(reminder);
    }
    return await this.#verdict();
  }

  async #guarded(task: Promise<void>): Promise<void> {
    try {
      await task;
    } finally {
      this.#done.abort();
    }
  }

  #finish(end: End): void {
    this.#end ??= end;
    this.#done.abort();
  }

  async #followConsole(): Promise<void> {
    // After the abort the rest of the file is still read: the words before the VMM's end are the cause of it.
    for await (const { lines, tail } of followConsole(this.watch.logs.consoleLog, {
      signal: this.#done.signal,
    })) {
      const now = performance.now();
      for (const line of lines) {
        if (line.trim() !== "") this.#lastLine = line;
        this.#evidence = atLine(this.#evidence, line, now);
      }
      this.#step(atTail(this.#evidence, tail, now));
    }
  }

  async #watchEnd(): Promise<void> {
    const { runs } = this.watch;
    while (!this.#done.signal.aborted) {
      if (!(await runs.isUp())) return this.#finish("exit");
      await pause(runs.pollMilliseconds, this.#done.signal);
    }
  }

  #step(evidence: Evidence): void {
    this.#evidence = evidence;
    clearTimeout(this.#due);
    if (isDecided(evidence)) {
      this.#finish(evidence.stage === "proved" ? "proved" : "line");
      return;
    }
    this.#tell();
    const due = dueOf(evidence);
    if (due === undefined || this.#done.signal.aborted) return;
    this.#due = setTimeout(
      () => this.#step(atTime(this.#evidence, performance.now())),
      Math.max(0, due - performance.now()),
    );
  }

  /** Says what is waited for, when that has changed, and now and then besides. */
  #tell(): void {
    const { claim, notice, vmName } = this.watch;
    const text = awaited(this.#evidence);
    const now = performance.now();
    if (text === this.#noticed.text && now - this.#noticed.at < NOTICE_INTERVAL - NOTICE_SLACK) return;
    const isNew = text !== this.#noticed.text;
    this.#noticed = { text, at: now };
    const server = claim.root.type === "nfs" ? this.#server?.description.text : undefined;
    const more = isNew
      ? ""
      : (server ?? (this.#lastLine === "" ? "" : `the console's last line: ${this.#lastLine}`));
    const what = `${text}${more === "" ? "" : ` (${more.slice(0, 300)})`}`;
    notice(noticeText("waiting", { vm: vmName, what }));
  }

  /** Asks the NFS server again and again: a refused or unknown export is silent in the guest for 100 s. */
  async #watchServer(): Promise<void> {
    const { root } = this.watch.claim;
    if (root.type === "disk") return await untilAborted(this.#done.signal);
    const { cmdline, guestNetwork } = this.watch;
    const request = probeRequestOf({ ...root, guestNetwork }, cmdline.split(" "));
    for (;;) {
      await pause(PROBE_INTERVAL, this.#done.signal);
      if (this.#done.signal.aborted) return;
      let finding;
      try {
        finding = await probeNfs({ ...request, signal: this.#done.signal });
      } catch (error) {
        if (this.#done.signal.aborted) return;
        throw error;
      }
      const before = this.#server?.kind;
      const isBad = finding.kind !== "ok" && finding.certain;
      this.#server = isBad ? { kind: finding.kind, description: describe(finding, request) } : undefined;
      if (isBad && finding.kind === before && LASTING.has(finding.kind)) this.#finish("server");
    }
  }

  async #verdict(): Promise<MicroVmError | undefined> {
    const { watch } = this;
    const end = this.#evidence.stage === "failed" ? "line" : (this.#end ?? "exit");
    if (end === "proved") return undefined;
    if (end === "interrupted") return interrupted();
    return await bootError(this.#failure(end), watch.logs);
  }

  #failure(end: Exclude<End, "proved" | "interrupted">): Failure {
    const { watch } = this;
    const { failure, hint } = this.#evidence;
    const server = this.#server?.description;
    const still = `while it waited for ${awaited(this.#evidence)}`;
    const known = server?.text ?? (hint === undefined ? undefined : `${hint.cause}. ${hint.remedy}`);
    switch (end) {
      case "line": {
        // Where the console only says that there is no root (or no init), the server may know why.
        const finding = failure?.generic === true ? this.#server : undefined;
        const isServer =
          failure?.unreachable === true || (finding !== undefined && LASTING.has(finding.kind));
        return {
          code: isServer ? "nfs-unreachable" : "boot-failed",
          what: `the guest did not come up: ${failure?.cause}`,
          remedy: finding?.description.text ?? failure?.remedy,
          input: finding?.description.input,
        };
      }
      case "server":
        return {
          code: "nfs-unreachable",
          what: server?.text ?? "the NFS server is not usable",
          input: server?.input,
        };
      case "timeout":
        return {
          code: "boot-timeout",
          what: `no proof within ${watch.timeoutSeconds} s: still waiting for ${awaited(this.#evidence)}`,
          remedy: known,
          input: "readiness.timeoutSeconds",
        };
      case "exit":
        return {
          code: "vmm-failed",
          what: `the VM ended ${still}: the guest powered off or reset itself, or ${watch.vmmName} was killed`,
          remedy: known,
          withVmmLog: true,
        };
      default:
        return end satisfies never;
    }
  }
}

async function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

/** Waits, but not beyond the abort. */
async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end);
  });
}
