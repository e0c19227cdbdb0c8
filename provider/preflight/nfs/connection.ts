/** One TCP connection to one RPC service: a call, its answer, then the next. Whatever goes wrong ends the probe. */

import { randomBytes, randomInt } from "node:crypto";
import { connect, type Socket } from "node:net";

import { systemCodeOf } from "../../errors.js";
import type { Deadline, StepTime } from "./deadline.js";
import { type NfsFinding, ProbeEnd, type Service } from "./finding.js";
import { encodeRecord, RecordAssembler, RecordError } from "./record.js";
import { decodeReply, encodeCall, type Procedure, type Reply } from "./rpc.js";
import { XdrError, type XdrReader } from "./xdr.js";

/** How to speak with a server's services. */
export interface Dialing {
  /** IPv4 address. */
  readonly server: string;
  readonly deadline: Deadline;
  readonly signal?: AbortSignal;
  /** Bind a source port below 1024, where this process may: some servers insist on one. */
  readonly privilegedPort: boolean;
  /** Whether a finding that depends on who asks is the guest's as well. */
  readonly asGuest: boolean;
  /** Whether the server is this host itself: where nothing listens for us, nothing listens for the guest. */
  readonly isThisHost?: boolean;
}

/** A call with a name for the finding, should it fail. */
export interface Call<T> {
  /** Name of the procedure in its RFC: `"GETATTR"`. */
  readonly step: string;
  readonly procedure: Procedure;
  readonly credential: Buffer;
  readonly args: Buffer;
  /** Reads the results; an {@link XdrError} becomes a finding. */
  readonly decode: (results: XdrReader) => T;
}

/** Answers to other calls than ours, and bytes altogether, that are put up with while an answer is waited for. */
const MAX_STRAY_REPLIES = 16;
const MAX_BYTES_PER_CALL = 512 * 1024;

const CLOSE_MS = 1000;

const PRIVILEGED_PORTS = { lowest: 512, count: 512 } as const;
const PORT_TRIES = 8;
const PORT_TAKEN = new Set(["EADDRINUSE", "EADDRNOTAVAIL"]);
const NO_RIGHT = new Set(["EACCES", "EPERM"]);

/** An open connection. Calls are made one at a time. */
export class RpcConnection {
  private constructor(
    readonly service: Service,
    readonly port: number,
    private readonly dialing: Dialing,
    private readonly socket: Socket,
  ) {
    // Between calls nobody listens; a failure then shows at the next call.
    socket.on("error", () => undefined);
    socket.setNoDelay(true);
    socket.pause();
  }

  readonly #records = new RecordAssembler();
  #hasAnswered = false;

  /** @throws {ProbeEnd} with the finding, or the signal's reason. */
  static async open(service: Service, port: number, dialing: Dialing): Promise<RpcConnection> {
    for (let attempt = 1; ; attempt += 1) {
      const bind = dialing.privilegedPort && attempt <= PORT_TRIES;
      const localPort = bind ? PRIVILEGED_PORTS.lowest + randomInt(PRIVILEGED_PORTS.count) : undefined;
      try {
        const socket = await openSocket(port, localPort, dialing);
        return new RpcConnection(service, port, dialing, socket);
      } catch (error) {
        const code = systemCodeOf(error);
        if (bind && PORT_TAKEN.has(code ?? "")) continue;
        // Without the right to a port below 1024, any other is what there is.
        if (bind && NO_RIGHT.has(code ?? "")) {
          return RpcConnection.open(service, port, { ...dialing, privilegedPort: false });
        }
        throw error instanceof LateError
          ? new ProbeEnd(error.finding(service, port, "connect", dialing.asGuest))
          : code === undefined
            ? error
            : new ProbeEnd(unconnected(service, port, code, dialing));
      }
    }
  }

  /** @throws {ProbeEnd} with the finding, or the signal's reason. */
  async call<T>({ step, procedure, credential, args, decode }: Call<T>): Promise<T> {
    const xid = randomBytes(4).readUInt32BE();
    const { service, port } = this;
    const at = { service, port, step };
    try {
      const reply = await this.#exchange(xid, encodeRecord(encodeCall(xid, procedure, credential, args)));
      this.#hasAnswered = true;
      if (reply.outcome === "success") return decode(reply.results);
      throw new ProbeEnd(this.#refusal(reply, procedure, step));
    } catch (error) {
      if (error instanceof XdrError || error instanceof RecordError) {
        throw new ProbeEnd({ kind: "not-rpc", certain: true, ...at, found: error.message });
      }
      if (error instanceof LateError) {
        const certain = this.dialing.asGuest && !this.#hasAnswered;
        throw new ProbeEnd(error.finding(service, port, step, certain));
      }
      if (error instanceof ClosedError) {
        const { receivedBytes } = error;
        throw new ProbeEnd({ kind: "disconnected", certain: this.dialing.asGuest, ...at, receivedBytes });
      }
      throw error;
    }
  }

  /** Sends a call and does not wait for its answer: for UMNT, whose effect is a line in a list (RFC 1813 section 5.0). */
  tell({ procedure, credential, args }: Omit<Call<never>, "decode">): void {
    this.socket.write(encodeRecord(encodeCall(randomBytes(4).readUInt32BE(), procedure, credential, args)));
  }

  /** Sends what is still to be sent, and hears no more. The process may end meanwhile. */
  close(): void {
    const { socket } = this;
    const destroy = (): void => void socket.destroy();
    socket.unref().end(destroy);
    // A peer that takes nothing does not keep the socket for ever.
    const timer = setTimeout(destroy, CLOSE_MS).unref();
    socket.once("close", () => clearTimeout(timer));
  }

  #exchange(xid: number, record: Buffer): Promise<Reply> {
    const { socket, dialing } = this;
    let receivedBytes = 0;
    let strays = 0;
    return bounded<Reply>(
      dialing,
      (time) => (strays > 0 ? strayed() : new LateError(time, receivedBytes)),
      (resolve, reject) => {
        const onData = (chunk: Buffer): void => {
          receivedBytes += chunk.length;
          try {
            for (const message of this.#records.push(chunk)) {
              const reply = decodeReply(message);
              if (reply.xid === xid) resolve(reply);
              else strays += 1;
              if (strays > MAX_STRAY_REPLIES) throw strayed();
            }
            if (receivedBytes > MAX_BYTES_PER_CALL) throw new RecordError("it sends without end");
          } catch (error) {
            reject(error);
          }
        };
        const onEnd = (): void => reject(strays > 0 ? strayed() : new ClosedError(receivedBytes));
        socket.on("data", onData).once("end", onEnd).once("error", onEnd).once("close", onEnd);
        if (socket.destroyed) onEnd();
        else socket.write(record);
        socket.resume();
        return () => {
          socket.pause();
          socket.off("data", onData).off("end", onEnd).off("error", onEnd).off("close", onEnd);
        };
      },
    );
  }

  #refusal(reply: Exclude<Reply, { outcome: "success" }>, procedure: Procedure, step: string): NfsFinding {
    const { service, port, dialing } = this;
    switch (reply.outcome) {
      case "program-unavailable":
        return { kind: "program-not-registered", certain: true, service, port, program: service };
      case "version-mismatch": {
        const { lowest, highest } = reply;
        const wanted = procedure.version;
        return { kind: "version-mismatch", certain: true, service, port, wanted, lowest, highest };
      }
      case "failed":
        return { kind: "rpc-error", certain: true, service, port, step, status: reply.status };
      case "denied": {
        const { reason } = reply;
        const certain = dialing.asGuest;
        return { kind: "rpc-denied", certain, service, port, step, reason, needsPrivilegedPort: false };
      }
      default: {
        const missing: never = reply;
        throw new TypeError(`no such outcome: ${JSON.stringify(missing)}`);
      }
    }
  }
}

/** The time of a step is up. */
class LateError extends Error {
  constructor(
    private readonly time: StepTime,
    private readonly receivedBytes: number,
  ) {
    super("late");
  }

  finding(service: Service, port: number, step: string, certain: boolean): NfsFinding {
    const { bound, seconds } = this.time;
    const { receivedBytes } = this;
    return { kind: "timed-out", certain, service, port, step, bound, seconds, receivedBytes };
  }
}

/** The peer closed the connection. */
class ClosedError extends Error {
  constructor(readonly receivedBytes: number) {
    super("closed");
  }
}

/** Whole answers came, none of them to our call. */
function strayed(): XdrError {
  return new XdrError("it answers with other transaction ids than ours");
}

/** A promise with the step's time bound and the probe's signal; `start` returns what undoes it. */
async function bounded<T>(
  { deadline, signal }: Dialing,
  late: (time: StepTime) => Error,
  start: (resolve: (value: T) => void, reject: (error: unknown) => void) => () => void,
): Promise<T> {
  const time = deadline.nextStep();
  const undo: (() => void)[] = [];
  try {
    return await new Promise<T>((resolve, reject) => {
      undo.push(start(resolve, reject));
      const onLate = (): void => reject(late(time));
      // A busy process is no slow server: what has arrived meanwhile is read before the time counts as up.
      const timer = setTimeout(() => setImmediate(onLate), time.milliseconds);
      undo.push(() => clearTimeout(timer));
      const onAbort = (): void => reject(signal?.reason);
      signal?.addEventListener("abort", onAbort);
      undo.push(() => signal?.removeEventListener("abort", onAbort));
      if (signal?.aborted === true) onAbort();
    });
  } finally {
    for (const step of undo) step();
  }
}

function openSocket(port: number, localPort: number | undefined, dialing: Dialing): Promise<Socket> {
  const socket = connect({ host: dialing.server, port, localPort, family: 4 });
  return bounded<Socket>(
    dialing,
    (time) => new LateError(time, 0),
    (resolve, reject) => {
      const onConnect = (): void => resolve(socket);
      socket.once("connect", onConnect).once("error", reject);
      return () => socket.off("connect", onConnect).off("error", reject);
    },
  ).catch((error: unknown) => {
    socket.on("error", () => undefined);
    socket.destroy();
    throw error;
  });
}

function unconnected(service: Service, port: number, code: string, dialing: Dialing): NfsFinding {
  const certain = dialing.asGuest;
  if (code === "ECONNREFUSED") {
    return { kind: "refused", certain: certain || dialing.isThisHost === true, service, port };
  }
  if (code === "ECONNRESET") {
    return { kind: "disconnected", certain, service, port, step: "connect", receivedBytes: 0 };
  }
  return { kind: "unreachable", certain, service, port, reason: code };
}
