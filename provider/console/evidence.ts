/**
 * What proves that the guest runs on the named root: a state machine over console lines. Pure: time is given, not read.
 * In order, all of it after the echo of the command line: the mount, the start of init, then a sign of user space.
 */

import type { Readiness } from "../backends/backend.js";
import type { BootConfiguration, Root } from "../boot/boot.js";
import { MicroVmError, messageOf, shown } from "../errors.js";
import { type Diagnosis, diagnose } from "./diagnose.js";
import { echoesCommandLine, splitLine } from "./lines.js";

/** What is to be proved, and by whose words. */
export interface Claim {
  readonly root: Root;
  /**
   * `kernel`: the kernel mounts the root. `initramfs`: ours does. `person`: an initramfs of the person's own does, or the command line
   * hides the kernel's lines; only `readiness` can tell.
   */
  readonly by: "kernel" | "initramfs" | "person";
  /** What a line of the console must match, instead of any output of user space. */
  readonly readiness?: RegExp;
}

/** How far the console has shown the boot to be. */
export type Stage = "silent" | "booting" | "mounted" | "started" | "proved" | "failed";

/** The state of the machine; begin with {@link unproved}. All times are milliseconds of the caller's clock. */
export interface Evidence {
  readonly claim: Claim;
  readonly stage: Stage;
  /** Why it failed, when it has. */
  readonly failure?: Diagnosis;
  /** The latest line that tells of a cause without ending the boot. */
  readonly hint?: Diagnosis;
  /** Whether the kernel stamps its lines with the time: only then can user space's be told from them. */
  readonly stamped: boolean;
  /** When the command line was echoed. */
  readonly begunAt?: number;
  /** The program that was started last. */
  readonly init?: string;
  /** When the start of init counts as proof, if no panic and no failed exec comes first. */
  readonly calmAt?: number;
  /** Whether user space has printed anything since. */
  readonly spoken: boolean;
  /** What user space had written of a line when the kernel wrote into it. */
  readonly carried: string;
  /** The unfinished last line. */
  readonly tail: string;
  /** When the unfinished line is read as one. */
  readonly tailAt?: number;
}

/**
 * How long the console must stay free of a panic after init was started, in milliseconds: 500, or a fifth of the boot so far if that is
 * more. An emulated guest on a busy host is slow to fail, too.
 */
const CALM = { least: 500, share: 0.2 };
/** The same after the first output of user space: an init that gives up prints why, and the panic follows. */
const CALM_AFTER_OUTPUT = { least: 2000, share: 0.2 };
/** How long an unfinished line must stand to be read as one (a login prompt has no line end), in milliseconds. */
export const TAIL_MILLISECONDS = 50;

// The levels below which these lines are not shown: the mount and the start of init are KERN_INFO, 6.
const LOWEST_SHOWN_LOGLEVEL = 7;
const NOT_A_DISK = new Set(["nfs", "nfs4", "cifs", "9p", "virtiofs", "rootfs", "ramfs", "tmpfs"]);

/**
 * What has to be proved for a boot.
 * @throws MicroVmError `invalid-input` when only a `readiness.console` could tell and there is none, or it is no pattern.
 */
export function claimOf(
  boot: Pick<BootConfiguration, "root" | "initramfs" | "cmdline">,
  readiness: Readiness,
): Claim {
  const pattern = readiness.console === undefined ? undefined : compile(readiness.console);
  const hidden = hidesKernelLines(boot.cmdline);
  const foreign = boot.initramfs !== undefined && !boot.initramfs.generated;
  if (!hidden && !foreign) {
    const by = boot.initramfs === undefined ? "kernel" : "initramfs";
    return { root: boot.root, by, readiness: pattern };
  }
  if (pattern === undefined) {
    const why = foreign
      ? "an `initramfs` of your own mounts the root, which the console does not show in a known way"
      : "`quiet` or a `loglevel` below 7 in kernelArgs hides the kernel's line about the mounted root";
    throw new MicroVmError(
      "invalid-input",
      `${why}: expected a pattern that a console line of the ready guest matches, found nothing. Set it, for example to "login:".`,
      { input: "readiness.console" },
    );
  }
  return { root: boot.root, by: "person", readiness: pattern };
}

/** The machine before the first line. */
export function unproved(claim: Claim): Evidence {
  return { claim, stage: "silent", stamped: false, spoken: false, carried: "", tail: "" };
}

/** Takes one whole console line. `now` is any clock in milliseconds, the same for all calls. */
export function atLine(before: Evidence, line: string, now: number): Evidence {
  if (before.stage === "failed") return before;
  const parts = splitLine(line);
  const isStamped = parts.kernel !== undefined;
  // Without time stamps a line may be anyone's, and before the first echo nothing is known yet.
  const kernel = parts.kernel ?? (before.stamped ? undefined : line);
  const user = isStamped ? "" : before.carried + line;
  const carried = isStamped ? before.carried + parts.user : "";
  const state: Evidence = { ...before, carried, tail: "", tailAt: undefined };
  if (kernel !== undefined && echoesCommandLine(kernel)) {
    return state.stage === "silent"
      ? { ...state, stamped: isStamped, stage: "booting", begunAt: now }
      : state;
  }
  const said = diagnose({ kernel, user: initramfsWords(kernel, user) });
  if (said?.ends === true) return failed(state, said);
  return onward(said === undefined ? state : { ...state, hint: said }, kernel, user, line, now);
}

/** Takes the unfinished last line, whenever it has changed. */
export function atTail(state: Evidence, tail: string, now: number): Evidence {
  if (state.tail === tail || isDecided(state)) return state;
  return { ...state, tail, tailAt: tail === "" ? undefined : now + TAIL_MILLISECONDS };
}

/** Tells the machine what time it is; to be called at {@link dueOf}. */
export function atTime(state: Evidence, now: number): Evidence {
  if (isDecided(state)) return state;
  if (state.calmAt !== undefined && now >= state.calmAt) return { ...state, stage: "proved" };
  if (state.tailAt === undefined || now < state.tailAt) return state;
  const rest: Evidence = { ...state, tailAt: undefined };
  // What begins like a time stamp is the kernel's, and will be read when it is whole.
  if (state.tail.startsWith("[") || splitLine(state.tail).kernel !== undefined) return rest;
  const user = state.carried + state.tail;
  return isSign(rest, user, user) ? signed(rest, now) : rest;
}

/** When {@link atTime} may change something; undefined while only a line can. */
export function dueOf(state: Evidence): number | undefined {
  if (isDecided(state)) return undefined;
  const due = Math.min(state.calmAt ?? Infinity, state.tailAt ?? Infinity);
  return due === Infinity ? undefined : due;
}

/** Whether nothing is to be waited for any more. */
export function isDecided(state: Evidence): boolean {
  return state.stage === "proved" || state.stage === "failed";
}

/** What the machine waits for, for the person: `the kernel to mount 10.0.2.2:/srv over NFS`. */
export function awaited(state: Evidence): string {
  const { claim } = state;
  if (claim.by === "person") return `a console line that matches ${String(claim.readiness)}`;
  switch (state.stage) {
    case "silent":
      return "the kernel's first console line";
    case "booting": {
      const who = claim.by === "kernel" ? "the kernel" : "the initramfs";
      return `${who} to mount ${rootName(claim.root)}`;
    }
    case "mounted":
      return "the kernel to start the root's init program";
    case "started":
      return claim.readiness === undefined
        ? `a sign of life from ${state.init}`
        : `a console line that matches ${String(claim.readiness)}`;
    case "proved":
    case "failed":
      return "nothing more";
    default:
      return state.stage satisfies never;
  }
}

/** One step on, by a line that is neither an echo nor the end. */
function onward(
  state: Evidence,
  kernel: string | undefined,
  user: string,
  line: string,
  now: number,
): Evidence {
  if (state.claim.by === "person") {
    return isSign(state, user, line) ? signed(state, now) : state;
  }
  if (state.stage === "silent") return state;
  const mount = mountIn(state.claim, kernel, user);
  if (mount === "other") return failed(state, otherRoot(state.claim.root, kernel ?? user));
  if (mount === "named") return { ...state, stage: "mounted" };
  if (state.stage === "booting") return state;
  const init = startIn(state.claim, kernel, user);
  if (init !== undefined) {
    const calmAt = state.claim.readiness === undefined ? calmFrom(state, CALM, now) : undefined;
    return { ...state, stage: "started", init, calmAt, spoken: false };
  }
  return isSign(state, user, line) ? signed(state, now) : state;
}

/** A match of the person's pattern decides at once, any other output once it has stayed calm for a while. */
function signed(state: Evidence, now: number): Evidence {
  if (state.claim.readiness !== undefined) return { ...state, stage: "proved" };
  return state.spoken ? state : { ...state, spoken: true, calmAt: calmFrom(state, CALM_AFTER_OUTPUT, now) };
}

function calmFrom({ begunAt }: Evidence, calm: typeof CALM, now: number): number {
  const share = calm.share * (now - (begunAt ?? now));
  return now + Math.max(calm.least, share);
}

/** Whether a line says that the named root was mounted, or another one. */
function mountIn(claim: Claim, kernel: string | undefined, user: string): "named" | "other" | undefined {
  if (claim.by === "kernel") {
    const fileSystem = /^VFS: Mounted root \((\S+) filesystem\)/.exec(kernel ?? "")?.[1];
    if (fileSystem === undefined) return undefined;
    const isNamed = claim.root.type === "nfs" ? fileSystem === "nfs" : !NOT_A_DISK.has(fileSystem);
    return isNamed ? "named" : "other";
  }
  const match = /^microvm-initramfs: mounted root \((\S+)\) (\S.*)$/.exec(initramfsWords(kernel, user));
  const [, fileSystem = "", source = ""] = match ?? [];
  if (match === null) return undefined;
  const isNamed =
    claim.root.type === "nfs"
      ? fileSystem === "nfs" && source.trim() === `${claim.root.server}:${claim.root.path}`
      : !NOT_A_DISK.has(fileSystem) && source.trim() === "/dev/vda";
  return isNamed ? "named" : "other";
}

/** The init program whose start a line tells of. */
function startIn(claim: Claim, kernel: string | undefined, user: string): string | undefined {
  if (claim.by === "kernel") return /^Run (\S+) as init process/.exec(kernel ?? "")?.[1];
  return /^microvm-initramfs: starting (\S+)/.exec(initramfsWords(kernel, user))?.[1];
}

/** Our initramfs writes to the console, or through the kernel's log. */
function initramfsWords(kernel: string | undefined, user: string): string {
  return kernel?.startsWith("microvm-initramfs: ") === true ? kernel : user;
}

/** Whether a line is the sign of user space that the claim asks for. */
function isSign(state: Evidence, user: string, line: string): boolean {
  const { claim } = state;
  if (claim.by !== "person" && state.stage !== "started") return false;
  if (claim.readiness !== undefined) return claim.readiness.test(line) || claim.readiness.test(user);
  if (!state.stamped || user.trim() === "" || user.startsWith("microvm-initramfs: ")) return false;
  return diagnose({ user }) === undefined; // the words of a loader that gives up prove nothing
}

function failed(state: Evidence, said: Diagnosis): Evidence {
  const { hint } = state;
  const failure =
    said.generic && hint !== undefined && !hint.generic
      ? { ...said, cause: hint.cause, remedy: hint.remedy, words: hint.words }
      : said;
  return { ...state, stage: "failed", failure, calmAt: undefined, tailAt: undefined };
}

function otherRoot(root: Root, words: string): Diagnosis {
  return {
    ends: true,
    generic: false,
    cause: `the guest mounted another root than ${rootName(root)}`,
    remedy: "See that kernelArgs and the kernel's built-in command line name no other root.",
    words: words.trim(),
  };
}

function rootName(root: Root): string {
  return root.type === "nfs" ? `${root.server}:${root.path} over NFS (port ${root.port})` : "/dev/vda";
}

/** Whether the command line keeps the lines that we look for from the console. */
function hidesKernelLines(cmdline: string): boolean {
  const words = cmdline.split(/\s+/);
  // The last of the words wins, as in the kernel.
  let hidden = false;
  for (const word of words) {
    const level = /^loglevel=(.*)$/.exec(word)?.[1];
    if (word === "quiet") hidden = true;
    else if (word === "debug" || word === "ignore_loglevel") hidden = false;
    else if (level !== undefined) hidden = !(Number(level) >= LOWEST_SHOWN_LOGLEVEL);
  }
  return hidden;
}

function compile(pattern: string): RegExp {
  try {
    return new RegExp(pattern, "u");
  } catch (error) {
    throw new MicroVmError(
      "invalid-input",
      `expected a regular expression (JavaScript's, with the u flag), found ${shown(pattern)}: ${messageOf(error)}`,
      { input: "readiness.console", cause: error },
    );
  }
}
