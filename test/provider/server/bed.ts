/** A server of a test's own, in this process, on a free loopback port: its config, its state, its guests' kernels. */

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { type Running, serve, type ServeOptions } from "../../../provider/server/serve.js";
import { endProcess, findByArgument } from "../../../provider/host/process.js";
import { scriptedKernel, type ScriptedKind, scriptOf } from "../../lab/scripted-guest.js";

/** What the server answered. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly text: string;
  /** The text, where it is JSON. */
  readonly body: Readonly<Record<string, unknown>>;
}

/** What a request has beside its method and path. */
export interface Given {
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string | undefined>>;
  /** As it goes out, instead of `body`. */
  readonly text?: string;
}

const KINDS: readonly ScriptedKind[] = ["complete", "silent", "mute", "exits"];

/** Kernels, a root disk and a folder for everything of a test. */
export class ServerBed {
  readonly log: string[] = [];
  #running: Running | undefined;

  private constructor(readonly folder: string) {}

  static async open(): Promise<ServerBed> {
    const folder = await mkdtemp(join(tmpdir(), "microvm-server-"));
    await mkdir(join(folder, "run"), { mode: 0o700 });
    process.env["XDG_RUNTIME_DIR"] = join(folder, "run");
    for (const kind of KINDS) {
      const kernel = scriptedKernel(...scriptOf(kind, "root=/dev/vda", "disk"));
      await writeFile(join(folder, `${kind}.elf`), kernel);
    }
    await writeFile(join(folder, "root.img"), Buffer.alloc(1024 * 1024));
    return new ServerBed(folder);
  }

  get stateDirectory(): string {
    return join(this.folder, "state");
  }

  get config(): string {
    return join(this.folder, "config.yaml");
  }

  get url(): string {
    if (this.#running === undefined) throw new Error("the server does not run");
    return this.#running.url;
  }

  /**
   * Writes config.yaml.
   *
   * @param keys More of `hostservices.restserver`.
   */
  async configure(keys: Readonly<Record<string, unknown>> = {}): Promise<void> {
    const restserver = {
      host: "127.0.0.1",
      state_dir: "./state",
      hypervisor: "qemu",
      kernel: "./silent.elf",
      rootfs: "./root.img",
      ...keys,
    };
    // JSON is YAML.
    await writeFile(this.config, JSON.stringify({ hostservices: { restserver } }));
  }

  async start(options: Partial<ServeOptions> = {}): Promise<void> {
    const log = { write: (line: string) => void this.log.push(line) };
    const given = {
      config: this.config,
      port: 0,
      allowedHosts: [],
      insecure: false,
      shutdownTimeoutSeconds: 0,
    };
    this.#running = await serve({ ...given, ...options }, log);
  }

  async stop(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.stop();
  }

  /** Stops the server, ends every VM that is left, and removes the folder. */
  async close(): Promise<void> {
    await this.stop();
    for (const vmm of findByArgument(`${this.stateDirectory}/`)) await endProcess(vmm, 0);
    await rm(this.folder, { recursive: true, force: true });
  }

  async call(method: string, path: string, given: Given = {}): Promise<Answer> {
    return await call(this.url, method, path, given);
  }

  /** Asks for a VM whose guest says what one of this kind says. */
  async post(vmName: string, kind: ScriptedKind = "silent", more: object = {}): Promise<Answer> {
    const kernel = join(this.folder, `${kind}.elf`);
    return await this.call("POST", "/v1/vms", { body: { vmName, kernel, ...more } });
  }
}

/** One request to a server. */
export function call(url: string, method: string, path: string, given: Given = {}): Promise<Answer> {
  const text = given.text ?? (given.body === undefined ? undefined : JSON.stringify(given.body));
  const headers = { ...(text === undefined ? {} : { "content-type": "application/json" }), ...given.headers };
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    // What goes out is what is given: fetch would set the Host header and clean the path.
    const request = httpRequest({ hostname, port, method, path, headers, agent: false }, (response) => {
      let received = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (received += chunk));
      response.on("error", reject).on("end", () => {
        const { statusCode: status = 0, headers: answered } = response;
        resolve({ status, headers: answered, text: received, body: objectIn(received) });
      });
    });
    request.on("error", reject).end(text);
  });
}

function objectIn(text: string): Answer["body"] {
  try {
    return JSON.parse(text) as Answer["body"];
  } catch {
    return {};
  }
}

/** The message of an answer that is not 2xx. */
export function messageIn({ body }: Answer): string {
  const { error } = body as { readonly error?: { readonly message?: string } };
  return error?.message ?? "";
}
