/** Which program the kernel will run as process 1, and whether it can (init/main.c, kernel_init; execve(2)). */

import { HEAD_BYTES, inspectExecutable, machineName, runsOn } from "./executable.js";
import type { Architecture, FindingOf, InitProgram, NfsFinding } from "./finding.js";
import type { FileNode, NfsSession } from "./session.js";
import { walk } from "./walk.js";

/** What the kernel tries without `init=`, in its order. */
const DEFAULT_INITS = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"] as const;

/** What is gone on from without a word. */
const PASSED_OVER: Readonly<Record<"kernel" | "initramfs", ReadonlySet<Problem["kind"]>>> = {
  kernel: new Set(["init-missing", "interpreter-missing"]),
  initramfs: new Set(["init-missing"]),
};

/** A script's interpreter may be a script again, this often. */
const MAX_SCRIPTS = 4;

/** What can be wrong with init. */
type Problem = FindingOf<"init-missing" | "init-not-executable" | "init-wrong-arch" | "interpreter-missing">;

/** What is looked for. */
export interface InitRequest {
  /** The value of `init=`. */
  readonly init?: string;
  /** Without it, programs for any processor are good. */
  readonly arch?: Architecture;
  /** Who starts init: the kernel (default), or an initramfs of ours, which knows nothing of interpreters. */
  readonly startedBy?: "kernel" | "initramfs";
}

/**
 * Looks for init in the export as the kernel does: the program of `init=` and no other, or the first of its own list that
 * is there. The kernel passes over one that is not there, or whose interpreter is not (both ENOENT); it passes over one
 * that it cannot run as well, but says so, and that ends a boot here: the next would not be the init that was meant.
 * @throws {ProbeEnd} when the server fails.
 */
export async function findInit(
  session: NfsSession,
  root: FileNode,
  { init, arch, startedBy = "kernel" }: InitRequest,
): Promise<InitProgram | Problem> {
  const tried = init === undefined ? DEFAULT_INITS : [init];
  const problems: Problem[] = [];
  for (const path of tried) {
    const result = await new Candidate(session, root, init !== undefined, arch).inspect(path);
    if (!("kind" in result) || !PASSED_OVER[startedBy].has(result.kind)) return result;
    problems.push(result);
  }
  const first = problems.find(({ kind }) => kind !== "init-missing") ?? problems[0];
  if (first === undefined) throw new TypeError("no init program was asked for");
  return first.kind === "init-missing" ? { ...first, tried } : first;
}

/** One program that may be init. */
class Candidate {
  constructor(
    private readonly session: NfsSession,
    private readonly root: FileNode,
    private readonly asked: boolean,
    private readonly arch: Architecture | undefined,
  ) {}

  async inspect(path: string): Promise<InitProgram | Problem> {
    const found = await walk(this.session, this.root, path);
    const { asked } = this;
    if (found.end === "missing") {
      return { kind: "init-missing", certain: true, asked, tried: [path], missing: found.missing };
    }
    if (found.end === "endless") return this.#notExecutable(path, "its symbolic links lead in a circle");
    return this.#inspectFile(path, found.node, MAX_SCRIPTS);
  }

  async #inspectFile(path: string, node: FileNode, scriptsLeft: number): Promise<InitProgram | Problem> {
    const { type, mode } = node.attributes;
    if (type !== "file") return this.#notExecutable(path, `it is a ${type}`);
    if ((mode & 0o111) === 0) {
      return this.#notExecutable(path, `it has no execute permission (mode ${mode.toString(8)})`);
    }
    const executable = inspectExecutable(await this.session.readHead(node, HEAD_BYTES));
    switch (executable.format) {
      case "unknown":
        return this.#notExecutable(path, `it is ${executable.why}`);
      case "script":
        if (scriptsLeft === 0) return this.#notExecutable(path, "its interpreter is a script, and so on");
        break;
      case "elf":
        if (this.arch !== undefined && !runsOn(this.arch, executable.machine)) {
          return {
            kind: "init-wrong-arch",
            certain: true,
            asked: this.asked,
            path,
            expected: this.arch,
            found: machineName(executable.machine),
          };
        }
        break;
      default: {
        const missing: never = executable;
        throw new TypeError(`no such format: ${JSON.stringify(missing)}`);
      }
    }
    const { format, interpreter } = executable;
    const program: InitProgram = { path, resolvedPath: node.path, format, interpreter };
    if (interpreter === undefined) return program;
    return (
      (await this.#interpreterProblem(path, interpreter, format === "script" ? scriptsLeft - 1 : 0)) ??
      program
    );
  }

  async #interpreterProblem(
    path: string,
    interpreter: string,
    scriptsLeft: number,
  ): Promise<Problem | undefined> {
    const found = await walk(this.session, this.root, interpreter);
    if (found.end !== "found") {
      return { kind: "interpreter-missing", certain: true, asked: this.asked, path, interpreter };
    }
    const result = await this.#inspectFile(interpreter, found.node, scriptsLeft);
    return "kind" in result ? result : undefined;
  }

  #notExecutable(path: string, why: string): NfsFinding & Problem {
    return { kind: "init-not-executable", certain: true, asked: this.asked, path, why };
  }
}
