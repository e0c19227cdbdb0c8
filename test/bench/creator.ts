/** VMs made by the provider in a process of its own, with a state directory of its own. */

import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** What a create came to. */
export interface Created {
  /** How long it took. */
  readonly seconds: number;
  /** When it returned, in milliseconds since the epoch. */
  readonly returnedAt: number;
  readonly id: string;
  readonly outs: { readonly consoleLog: string; readonly stateDirectory: string; readonly pid: number };
}

export class Creator {
  #made = 0;
  /** VMMs of VMs that were not removed. */
  readonly #running = new Set<number>();

  private constructor(
    readonly folder: string,
    readonly child: ChildProcess,
  ) {}

  static async start(): Promise<Creator> {
    const folder = await mkdtemp(join(tmpdir(), "bench-"));
    for (const name of ["run", "state"]) await mkdir(join(folder, name), { mode: 0o700 });
    const child = fork(join(__dirname, "creator.cjs"), {
      env: { ...process.env, XDG_STATE_HOME: join(folder, "state"), XDG_RUNTIME_DIR: join(folder, "run") },
      execArgv: [],
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    });
    return new Creator(folder, child);
  }

  /** Makes a VM, and returns when the provider does. */
  async create(inputs: object): Promise<Created> {
    this.#made += 1;
    const name = `bench-${process.pid}-${this.#made}`;
    const owner = {
      organization: "organization",
      urn: `urn:pulumi:bench::bench::microvm:index:MicroVm::${name}`,
      program: this.folder,
    };
    const created = (await this.#ask({
      method: "create",
      inputs: { ...inputs, vmName: name, owner },
    })) as Created;
    this.#running.add(created.outs.pid);
    return created;
  }

  /** Ends the VM at once and removes it. */
  async remove({ id, outs }: Created): Promise<void> {
    this.#end(outs.pid);
    await this.#ask({ method: "remove", id, outs });
  }

  #end(pid: number): void {
    process.kill(pid, "SIGKILL");
    this.#running.delete(pid);
  }

  async close(): Promise<void> {
    for (const pid of this.#running) this.#end(pid);
    const exited = once(this.child, "exit");
    this.child.disconnect();
    await exited;
    await rm(this.folder, { recursive: true, force: true });
  }

  async #ask(request: object): Promise<unknown> {
    const answered = once(this.child, "message");
    this.child.send(request);
    const [{ answer, error }] = (await answered) as [{ answer?: unknown; error?: string }];
    if (error !== undefined) throw new Error(error);
    return answer;
  }
}
