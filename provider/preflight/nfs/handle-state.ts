/** Whether a guest's root is still there: its file handle is asked for, over one connection per server however many VMs there are. */

import { RpcConnection } from "./connection.js";
import { Deadline } from "./deadline.js";
import { ProbeEnd } from "./finding.js";
import { NfsSession } from "./session.js";

/** `unknown`: the server does not answer, or answers with something else; that says nothing of the handle. */
export type HandleState = "good" | "stale" | "unknown";

/** A file handle on a server. */
export interface HandlePlace {
  /** IPv4 address. */
  readonly server: string;
  /** TCP port of nfsd. */
  readonly port: number;
  /** Hex digits, at most 64 bytes. */
  readonly fileHandle: string;
}

/** An answer counts for this long at most, in milliseconds: the engine asks about hundreds of VMs in a row. */
const FRESH_MILLISECONDS = 1000;
/** A server that did not answer is not asked again for this long: it would cost its time with every VM. */
const SILENT_MILLISECONDS = 10_000;
/** One connect, or one call with its answer. */
const STEP_MILLISECONDS = 2000;
/** A question that others have held up for so long is not asked: a slow server costs no more, however many VMs have their root there. */
const WAIT_MILLISECONDS = 5000;
/** How long a connection is kept that nobody uses, and what its server has answered. */
const IDLE_MILLISECONDS = 500;

const lines = new Map<string, ServerLine>();

/**
 * Asks GETATTR; 2 s at most for a connect and as much for an answer, once per server when it does not answer, and 5 s at most
 * for those who have asked before.
 */
export async function handleState({ server, port, fileHandle }: HandlePlace): Promise<HandleState> {
  const key = `${server} ${port}`;
  let line = lines.get(key);
  if (line === undefined) {
    line = new ServerLine(server, port, () => lines.delete(key));
    lines.set(key, line);
  }
  return await line.ask(fileHandle);
}

/** One server: its questions one after the other, on one connection. */
class ServerLine {
  readonly #answers = new Map<string, { readonly askedAt: number; readonly state: Promise<HandleState> }>();
  #last: Promise<unknown> = Promise.resolve();
  #connection: RpcConnection | undefined;
  #silentUntil = -Infinity;
  #end: NodeJS.Timeout | undefined;

  /** @param forget Called when nobody has asked for a while: a process that lives long would keep every server for good. */
  constructor(
    readonly server: string,
    readonly port: number,
    readonly forget: () => void,
  ) {}

  ask(fileHandle: string): Promise<HandleState> {
    const now = performance.now();
    const known = this.#answers.get(fileHandle);
    if (known !== undefined && now - known.askedAt < FRESH_MILLISECONDS) return known.state;
    const state = this.#last.then(() =>
      performance.now() - now > WAIT_MILLISECONDS
        ? "unknown"
        : this.#exchange(Buffer.from(fileHandle, "hex")),
    );
    // Whoever asked hears of a fault; it is not that of the next.
    this.#last = state.catch(() => undefined);
    this.#answers.set(fileHandle, { askedAt: now, state });
    return state;
  }

  /** Never throws: an answer that does not come is one, too. */
  async #exchange(fileHandle: Buffer): Promise<HandleState> {
    if (performance.now() < this.#silentUntil) return "unknown";
    clearTimeout(this.#end);
    try {
      const { status } = await this.#getAttributes(fileHandle);
      this.#endAfter(IDLE_MILLISECONDS);
      if (status === "NFS3_OK") return "good";
      return status === "NFS3ERR_STALE" || status === "NFS3ERR_BADHANDLE" ? "stale" : "unknown";
    } catch (error) {
      this.#close();
      if (!(error instanceof ProbeEnd)) throw error;
      this.#silentUntil = performance.now() + SILENT_MILLISECONDS;
      this.#endAfter(SILENT_MILLISECONDS);
      return "unknown";
    }
  }

  async #getAttributes(fileHandle: Buffer): Promise<{ readonly status: string }> {
    const isKept = this.#connection !== undefined;
    this.#connection ??= await RpcConnection.open("nfsd", this.port, {
      server: this.server,
      deadline: new Deadline({ stepMs: STEP_MILLISECONDS, totalMs: Infinity }),
      // The kernel's nfsd answers no other by default, and a guest on a tap has one.
      privilegedPort: true,
      asGuest: true,
    });
    try {
      return await new NfsSession(this.#connection, true).getAttributes(fileHandle);
    } catch (error) {
      this.#close();
      // The server may have been restarted since the last question.
      const isClosed = error instanceof ProbeEnd && error.finding.kind === "disconnected";
      if (isKept && isClosed) return await this.#getAttributes(fileHandle);
      throw error;
    }
  }

  #endAfter(milliseconds: number): void {
    this.#end = setTimeout(() => {
      this.#close();
      this.forget();
    }, milliseconds).unref();
  }

  #close(): void {
    this.#connection?.close();
    this.#connection = undefined;
  }
}
