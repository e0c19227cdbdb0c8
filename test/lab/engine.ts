/**
 * The real Pulumi engine in tests: a project in a scratch folder, with a Pulumi home, a state and a state directory for VMs of
 * its own, so that tests run side by side and never meet a person's account or VMs.
 */

import { cp, mkdir, mkdtemp, readFile, readdir, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, delimiter, join, resolve } from "node:path";
import { isOnPath } from "./programs.js";
import { type RunResult, runProcess } from "./run-process.js";

const REPOSITORY = resolve(__dirname, "../..");

/** What a stack is made of. */
export interface StackOptions {
  /** The program: the text of a CommonJS `index.js`, or files by name (`Pulumi.yaml` and `package.json` are added where there is none). */
  readonly program: string | Readonly<Record<string, string>>;
  /** Folder whose files are copied first, such as one of examples/. */
  readonly from?: string;
  /** Stack configuration: `microvm:nfsServer` and the like, or plain keys of the project's own. */
  readonly config?: Readonly<Record<string, string>>;
  /** Folder that becomes the program's node_modules; the repository's by default. */
  readonly nodeModules?: string;
  /** Added to the environment of the engine, and so of program and provider. */
  readonly env?: Readonly<Record<string, string>>;
  /** Folder of the stack, emptied first; a new one under the system's temporary folder by default. */
  readonly folder?: string;
}

/** A resource as the engine's state holds it. */
export interface StateResource {
  readonly urn: string;
  readonly type: string;
  readonly id?: string;
  readonly custom?: boolean;
  readonly inputs?: Readonly<Record<string, unknown>>;
  readonly outputs?: Readonly<Record<string, unknown>>;
}

/** The engine's state: `pulumi stack export`. */
export interface StackState {
  readonly deployment: {
    readonly resources?: readonly StateResource[];
    readonly pending_operations?: readonly { readonly type: string; readonly resource: StateResource }[];
  };
}

/** A step of `pulumi preview --json`. */
export interface PreviewStep {
  readonly op: string;
  readonly urn: string;
  /** Names of the inputs that make it a replace. */
  readonly replaceReasons?: readonly string[] | null;
  readonly newState?: StateResource;
  readonly oldState?: StateResource;
}

/** An engine that runs. */
export interface EngineRun {
  readonly result: Promise<RunResult>;
  /** What it has printed so far. */
  output(): string;
  /** Sends a signal to the engine's process alone: its provider and VMs stay. */
  kill(signal?: NodeJS.Signals): void;
}

/** Why the engine cannot run here, as the reason of a skipped test; undefined when it can. */
export function whyNoEngine(): string | undefined {
  const path = engineEnvironment({})["PATH"];
  const missing = ["pulumi", "pulumi-language-nodejs"].find((program) => !isOnPath(program, path));
  return missing === undefined ? undefined : `${missing} is not on PATH nor in $MICROVM_LAB_PULUMI`;
}

function engineEnvironment(env: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const folders = [
    process.env["MICROVM_LAB_PULUMI"],
    // pulumi-resource-pulumi-nodejs, the host of dynamic providers, where the CLI has none beside it
    join(REPOSITORY, "node_modules/@pulumi/pulumi"),
    process.env["PATH"],
  ];
  return { ...process.env, PATH: folders.filter(Boolean).join(delimiter), ...env };
}

/** One stack of one project. */
export class Stack {
  /** The program's folder. */
  readonly program: string;
  /** Where VMs of this stack are kept by default: `$XDG_STATE_HOME/pulumi-microvm`. */
  readonly stateDirectory: string;
  private readonly env: NodeJS.ProcessEnv;

  private constructor(
    /** Everything of this stack is under it, and every process of a VM names it in its arguments. */
    readonly folder: string,
    /** Where sockets and leases are: `$XDG_RUNTIME_DIR`. */
    readonly runtime: string,
    env: Readonly<Record<string, string>>,
  ) {
    this.program = join(folder, "program");
    this.stateDirectory = join(folder, "state/pulumi-microvm");
    this.env = engineEnvironment({
      PULUMI_HOME: join(folder, "pulumi"),
      PULUMI_BACKEND_URL: `file://${join(folder, "backend")}`,
      PULUMI_CONFIG_PASSPHRASE: "lab",
      PULUMI_SKIP_UPDATE_CHECK: "true",
      PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
      XDG_STATE_HOME: join(folder, "state"),
      XDG_RUNTIME_DIR: runtime,
      ...env,
    });
  }

  /** Makes project and stack (named `test`). */
  static async create(options: StackOptions): Promise<Stack> {
    if (options.folder !== undefined) await mkdir(options.folder, { recursive: true });
    const folder = await realpath(options.folder ?? (await mkdtemp(join(tmpdir(), "lab-"))));
    // Short, since a unix socket's path is at most 107 bytes.
    const runtime = await realpath(await mkdtemp(join(tmpdir(), "lab-run-")));
    const stack = new Stack(folder, runtime, options.env ?? {});
    if (options.folder !== undefined) {
      await stack.endProcesses();
      for (const name of await readdir(folder)) await rm(join(folder, name), { recursive: true });
    }
    for (const name of ["program", "backend", "pulumi"]) await mkdir(join(folder, name));
    await mkdir(join(folder, "state"), { mode: 0o700 });
    if (options.from !== undefined) await cp(options.from, stack.program, { recursive: true });
    await symlink(
      options.nodeModules ?? join(REPOSITORY, "node_modules"),
      join(stack.program, "node_modules"),
    );
    const program = options.program;
    await stack.writeProgram(typeof program === "string" ? { "index.js": program } : program);
    await stack.mustRun("stack", "init", "test");
    for (const [key, value] of Object.entries(options.config ?? {})) await stack.setConfig(key, value);
    return stack;
  }

  /** Writes files of the program. */
  async writeProgram(files: Readonly<Record<string, string>>): Promise<void> {
    const needed = { "Pulumi.yaml": "name: lab\nruntime: nodejs\n", "package.json": "{}\n" };
    const present = await readdir(this.program);
    const added = Object.fromEntries(Object.entries(needed).filter(([name]) => !present.includes(name)));
    for (const [name, text] of Object.entries({ ...added, ...files })) {
      await writeFile(join(this.program, name), text);
    }
  }

  async setConfig(key: string, value: string): Promise<void> {
    await this.mustRun("config", "set", "--", key, value);
  }

  /** `pulumi preview --diff`: the text that a person reads. */
  preview(...args: string[]): Promise<RunResult> {
    return this.run("preview", "--diff", ...args);
  }

  /** The steps of a preview, those of unchanged resources included. */
  async previewSteps(...args: string[]): Promise<readonly PreviewStep[]> {
    const { stdout } = await this.mustRun("preview", "--json", "--show-sames", ...args);
    const preview: { steps?: readonly PreviewStep[] } = JSON.parse(stdout);
    return preview.steps ?? [];
  }

  up(...args: string[]): Promise<RunResult> {
    return this.run("up", "--yes", "--skip-preview", ...args);
  }

  refresh(...args: string[]): Promise<RunResult> {
    return this.run("refresh", "--yes", ...args);
  }

  destroy(...args: string[]): Promise<RunResult> {
    return this.run("destroy", "--yes", ...args);
  }

  async export(): Promise<StackState> {
    return JSON.parse((await this.mustRun("stack", "export")).stdout);
  }

  /** Outputs of the stack, secrets in clear. */
  async outputs(): Promise<Readonly<Record<string, unknown>>> {
    return JSON.parse((await this.mustRun("stack", "output", "--json", "--show-secrets")).stdout);
  }

  /** The resources of a type in the engine's state; of MicroVm by default. */
  async resources(type = "microvm:index:MicroVm"): Promise<readonly StateResource[]> {
    const { deployment } = await this.export();
    return (deployment.resources ?? []).filter((resource) => resource.type === type);
  }

  /** Any command of the CLI, to its end. */
  run(...args: string[]): Promise<RunResult> {
    return this.start(...args).result;
  }

  /** Any command that must succeed. */
  async mustRun(...args: string[]): Promise<RunResult> {
    const result = await this.run(...args);
    if (result.exitCode === 0) return result;
    throw new Error(`pulumi ${args.join(" ")}: exit ${result.exitCode ?? result.signal}\n${result.output}`);
  }

  /** Starts a command of the CLI, to be killed or waited for. */
  start(...args: string[]): EngineRun {
    return this.startShown(args, () => {});
  }

  /** Starts a command of the CLI whose output is shown as it comes. */
  startShown(args: readonly string[], show: (text: string) => void, color = "never"): EngineRun {
    let output = "";
    let pid: number | undefined;
    // After "--" nothing is an option, so ours go first.
    const result = runProcess("pulumi", ["--non-interactive", `--color=${color}`, ...args], {
      cwd: this.program,
      env: this.env,
      onOutput: (text) => {
        output += text;
        show(text);
      },
      onStart: (started) => (pid = started),
    });
    return {
      result,
      output: () => output,
      kill: (signal = "SIGKILL") => {
        if (pid !== undefined) process.kill(pid, signal);
      },
    };
  }

  /** Process ids of everything that names this stack's folder in its arguments: VMMs, their relays, engines and providers. */
  async processes(): Promise<readonly { readonly pid: number; readonly args: readonly string[] }[]> {
    const found: { pid: number; args: string[] }[] = [];
    for (const name of await readdir("/proc")) {
      if (!/^\d+$/.test(name)) continue;
      // A process may end while it is looked at.
      const line = await readFile(`/proc/${name}/cmdline`, "utf8").catch(() => "");
      if (line.includes(this.folder)) found.push({ pid: Number(name), args: line.split("\0").slice(0, -1) });
    }
    return found;
  }

  /** What is left of VMs: processes, folders of the state directory, sockets and leases. Empty after a destroy. */
  async leftovers(): Promise<readonly string[]> {
    const processes = (await this.processes()).map(({ pid, args }) => `process ${pid}: ${args[0] ?? ""}`);
    const folders = await entries(this.stateDirectory);
    const vms = folders
      .filter((name) => name !== "host-id" && !name.startsWith("."))
      .map((name) => `VM ${name}`);
    const runtime = (await readdir(this.runtime, { recursive: true, withFileTypes: true }))
      .filter((entry) => !entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name))
      // The mark of a lease that was given back stays for a while, so that nobody gives it back twice.
      .filter((path) => !path.includes("/leases/.retired/"));
    return [...processes, ...vms, ...runtime];
  }

  /** Ends what still runs, by force, and removes the folder. For afterEach, whatever the test came to. */
  async dispose(): Promise<void> {
    await this.endProcesses();
    for (const folder of [this.folder, this.runtime]) {
      await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    }
  }

  private async endProcesses(): Promise<void> {
    for (const { pid, args } of await this.processes()) {
      // A person may be looking at a file of the folder with a program of their own.
      if (!/^(?:qemu-system-|pulumi|node|agentfs|ganesha\.nfsd)/.test(basename(args[0] ?? ""))) continue;
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It ended meanwhile.
      }
    }
  }
}

async function entries(folder: string): Promise<readonly string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}
