/** A client of the QEMU Machine Protocol (QEMU's docs/interop/qmp-spec) on a unix socket. */

import { type Socket, createConnection } from "node:net";

import { z } from "zod";

import { MicroVmError, messageOf } from "../../errors.js";

/** An event that QEMU told of its own accord: `{ event: "SHUTDOWN", data: { guest: true } }`. */
export interface QmpEvent {
  readonly event: string;
  readonly data: unknown;
}

/** How to connect; the defaults suit a local VMM. */
export interface QmpOptions {
  /** How long connecting, and each answer, may take, in seconds; 5 by default. */
  readonly timeoutSeconds?: number;
  readonly onEvent?: (event: QmpEvent) => void;
}

const MAX_BUFFERED_BYTES = 4 * 1024 * 1024;

const greetingSchema = z.object({
  QMP: z.object({
    version: z.object({ qemu: z.object({ major: z.number(), minor: z.number(), micro: z.number() }) }),
  }),
});
const errorSchema = z.object({ class: z.string(), desc: z.string() });
const messageSchema = z.union([
  greetingSchema,
  z.object({ return: z.unknown(), id: z.number() }),
  z.object({ error: errorSchema, id: z.number().optional() }),
  z.object({ event: z.string(), data: z.unknown().optional() }),
]);
const statusSchema = z.object({ status: z.string(), running: z.boolean() });

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: MicroVmError) => void;
}

/** One connection. QEMU serves one client at a time: keep it short. */
export class QmpClient {
  readonly #waiting = new Map<number | "greeting", Waiting>();
  #nextId = 1;
  #buffered = "";
  #closed: MicroVmError | undefined;

  private constructor(
    readonly socket: Socket,
    readonly path: string,
    readonly options: QmpOptions,
  ) {
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => this.#onText(text));
    socket.on("error", (error) => this.#fail(`its control socket failed: ${error.message}`, error));
    socket.on("close", () => this.#fail("it closed its control socket"));
  }

  /**
   * Connects and negotiates.
   * @throws MicroVmError `vmm-failed` when nobody answers at the socket; its `cause` is the system error.
   */
  static async connect(path: string, options: QmpOptions = {}): Promise<QmpClient> {
    const client = new QmpClient(createConnection({ path }), path, options);
    try {
      await client.#answer("greeting", "its greeting");
      await client.execute("qmp_capabilities");
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** Runs one command and gives its answer. @throws MicroVmError `vmm-failed` with QEMU's own words. */
  async execute(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    if (this.#closed !== undefined) throw this.#closed;
    const id = this.#nextId++;
    const answer = this.#answer(id, `an answer to ${command}`);
    this.socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    return await answer;
  }

  /** QEMU's run state: `running`, `paused`, `prelaunch`, `shutdown`, `guest-panicked`, … */
  async status(): Promise<string> {
    return this.#parse(statusSchema, "query-status", await this.execute("query-status")).status;
  }

  /** Lets the guest run. */
  async cont(): Promise<void> {
    await this.execute("cont");
  }

  /** Pauses the guest. */
  async stop(): Promise<void> {
    await this.execute("stop");
  }

  /** Presses the power button. */
  async systemPowerdown(): Promise<void> {
    await this.execute("system_powerdown");
  }

  /** Ends QEMU at once. It may close the connection before it has answered. */
  async quit(): Promise<void> {
    try {
      await this.execute("quit");
    } catch (error) {
      if (this.#closed === undefined) throw error;
    }
  }

  /** Changes the size of a block node, in bytes. */
  async blockResize(nodeName: string, bytes: number): Promise<void> {
    await this.execute("block_resize", { "node-name": nodeName, size: bytes });
  }

  /** Runs a command of the monitor for humans and gives what it prints. An error, too, is only printed. */
  async humanMonitorCommand(line: string): Promise<string> {
    const answer = await this.execute("human-monitor-command", { "command-line": line });
    return this.#parse(z.string(), "human-monitor-command", answer);
  }

  /** Ends the connection; the VMM goes on. */
  close(): void {
    this.#fail("the connection was closed here");
    this.socket.destroy();
  }

  async #answer(id: number | "greeting", what: string): Promise<unknown> {
    if (this.#closed !== undefined) throw this.#closed;
    const seconds = this.options.timeoutSeconds ?? 5;
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<unknown>((resolve, reject) => {
        this.#waiting.set(id, { resolve, reject });
        timer = setTimeout(
          () => reject(this.#error(`${what} did not come within ${seconds} s`)),
          seconds * 1000,
        );
      });
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(id);
    }
  }

  #onText(text: string): void {
    if (this.#closed !== undefined) return;
    this.#buffered += text;
    const lines = this.#buffered.split("\n");
    this.#buffered = lines.pop() ?? "";
    for (const line of lines) this.#onLine(line);
    if (this.#buffered.length > MAX_BUFFERED_BYTES) this.#drop("a line without an end");
  }

  #onLine(line: string): void {
    if (line.trim() === "") return;
    let message;
    try {
      message = messageSchema.parse(JSON.parse(line));
    } catch (error) {
      this.#drop(`${line.slice(0, 80)} (${messageOf(error).slice(0, 200)})`);
      return;
    }
    if ("QMP" in message) {
      this.#waiting.get("greeting")?.resolve(message);
    } else if ("event" in message) {
      this.options.onEvent?.({ event: message.event, data: message.data });
    } else if ("error" in message) {
      const waiting = message.id === undefined ? undefined : this.#waiting.get(message.id);
      waiting?.reject(this.#error(`it answered: ${message.error.desc} (${message.error.class})`));
    } else {
      this.#waiting.get(message.id)?.resolve(message.return);
    }
  }

  #parse<T>(schema: z.ZodType<T>, command: string, answer: unknown): T {
    const parsed = schema.safeParse(answer);
    if (parsed.success) return parsed.data;
    throw this.#error(`its answer to ${command} is not understood: ${z.prettifyError(parsed.error)}`);
  }

  #drop(found: string): void {
    this.#fail(`what it sent is no QMP: ${found}`);
    this.socket.destroy();
  }

  #fail(why: string, cause?: unknown): void {
    if (this.#closed !== undefined) return;
    this.#closed = this.#error(why, cause);
    for (const waiting of this.#waiting.values()) waiting.reject(this.#closed);
  }

  #error(why: string, cause?: unknown): MicroVmError {
    return new MicroVmError("vmm-failed", `QEMU at ${this.path}: ${why}`, { cause });
  }
}
