/**
 * A client of one HTTP server that speaks JSON, at a unix socket or a URL. Nothing is sent twice, unless a request says so.
 */

import { setTimeout as delay } from "node:timers/promises";

import type { Pool } from "undici";
import { z } from "zod";

import { type ErrorCode, MicroVmError, messageOf, shown } from "../errors.js";

/** Where the server is. */
export interface HttpPlace {
  /** Who answers there, for messages: `Cloud Hypervisor`. */
  readonly server: string;
  /** Absolute path of a unix socket, instead of the URL's host and port. */
  readonly socketPath?: string;
  /** Scheme, host and port: `http://localhost`. */
  readonly origin: string;
  /** Code of its errors; `vmm-failed` unless given. */
  readonly code?: ErrorCode;
  /** Sent as `Authorization: Bearer` (RFC 6750), and never shown. */
  readonly token?: string;
  /** Certificates in PEM form that the server's may be signed by, instead of Node's own. */
  readonly ca?: string;
  /** Requests that may be under way at a time; 1 unless given. */
  readonly connections?: number;
}

/** One request. */
export interface HttpRequest<T> {
  readonly method: "GET" | "PUT" | "POST" | "PATCH" | "DELETE";
  /** Path with its leading slash. */
  readonly path: string;
  /** Sent as JSON; absent for none. */
  readonly body?: unknown;
  /** What the answer's JSON must be; `z.undefined()` for an answer without a body, whatever may stand in it. */
  readonly answer: z.ZodType<T>;
  /** How long it may take from the connection to the last byte, in seconds. */
  readonly timeoutSeconds: number;
  /** Ends it early. */
  readonly signal?: AbortSignal;
  /** How many times it is sent again when no answer came; 0 unless given. Only for what changes nothing. */
  readonly repeats?: number;
}

/** An answer with another status than 2xx; the `cause` of the error that is thrown. */
export class HttpStatusError extends Error {
  override readonly name = "HttpStatusError";

  /**
   * @param status HTTP status code (RFC 9110, section 15).
   * @param text Body as it came.
   */
  constructor(
    readonly status: number,
    readonly text: string,
  ) {
    super(`status ${status}`);
  }
}

/** How long after a try without an answer the next one comes. */
const REPEAT_MILLISECONDS = 200;

/** Longest answer that is read, in bytes. */
const MOST_BYTES = 4 * 1024 * 1024;
const SHOWN_CHARACTERS = 500;

/** Connections that are kept between requests. */
export class HttpClient {
  private constructor(
    readonly pool: Pool,
    readonly place: HttpPlace,
  ) {}

  /** Loads the HTTP library and makes a client; nothing is sent before the first request. */
  static async open(place: HttpPlace): Promise<HttpClient> {
    const { Pool } = await import("undici");
    const { origin, socketPath, ca, connections = 1 } = place;
    // How long an answer may take, each request says.
    const timeouts = { headersTimeout: 0, bodyTimeout: 0 };
    const certificates = ca === undefined ? {} : { connect: { ca, socketPath } };
    const options = { connections, socketPath, maxResponseSize: MOST_BYTES, ...timeouts, ...certificates };
    return new HttpClient(new Pool(origin, options), place);
  }

  /**
   * Sends a request and reads its answer.
   *
   * @throws MicroVmError `vmm-failed` (or the place's code): nobody answers (its `cause` is the system's error), not within the time, with another status than
   * 2xx (its `cause` is an {@link HttpStatusError}), or with something else than `answer` (the text shows what).
   */
  async send<T>(request: HttpRequest<T>): Promise<T> {
    const { method, path, answer, repeats = 0 } = request;
    const what = `${method} ${path}`;
    const { status, text } = await this.#answer(what, request, repeats);
    if (status < 200 || status > 299) {
      throw this.#error(
        `${what} was answered with ${wordsOf(text)} (status ${status})`,
        new HttpStatusError(status, this.#withoutToken(text)),
      );
    }
    return this.#parsed(what, answer, text);
  }

  /** Ends the connection; the server goes on. */
  close(): void {
    // A request that is under way is told of by its own error.
    void this.pool.destroy();
  }

  async #answer<T>(
    what: string,
    request: HttpRequest<T>,
    repeats: number,
  ): Promise<{ status: number; text: string }> {
    const { method, path, body, timeoutSeconds, signal: ended } = request;
    const { token } = this.place;
    const inTime = AbortSignal.timeout(timeoutSeconds * 1000);
    try {
      const { statusCode: status, body: content } = await this.pool.request({
        method,
        path,
        signal: ended === undefined ? inTime : AbortSignal.any([inTime, ended]),
        headers: {
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        body: body === undefined ? null : JSON.stringify(body),
      });
      return { status, text: await content.text() };
    } catch (error) {
      if (repeats > 0 && !inTime.aborted && ended?.aborted !== true) {
        await delay(REPEAT_MILLISECONDS);
        return await this.#answer(what, request, repeats - 1);
      }
      const why = inTime.aborted ? `no answer within ${timeoutSeconds} s` : messageOf(error);
      throw this.#error(`${what}: ${why}`, error);
    }
  }

  #parsed<T>(what: string, answer: z.ZodType<T>, text: string): T {
    const nothing = answer.safeParse(undefined);
    if (nothing.success) return nothing.data;
    let content: unknown;
    try {
      content = JSON.parse(text);
    } catch (error) {
      throw this.#error(`the answer to ${what} is no JSON: ${short(text)}`, error);
    }
    const parsed = answer.safeParse(content);
    if (parsed.success) return parsed.data;
    const why = z.prettifyError(parsed.error).replaceAll(/\s+/g, " ");
    throw this.#error(`the answer to ${what} is not understood: ${why}: ${short(text)}`, parsed.error);
  }

  #error(why: string, cause: unknown): MicroVmError {
    const { server, socketPath, origin, code = "vmm-failed" } = this.place;
    return new MicroVmError(code, `${server} at ${socketPath ?? origin}: ${this.#withoutToken(why)}`, {
      cause,
    });
  }

  /** A server may answer with what it was sent. */
  #withoutToken(text: string): string {
    const { token } = this.place;
    return token === undefined ? text : text.replaceAll(token, "[secret]");
  }
}

/** A list of texts is a chain of causes, outermost first (Cloud Hypervisor); Arrakis has one message. */
const refusal = z.union([
  z
    .array(z.string())
    .min(1)
    .transform((causes) => causes.join(": ")),
  z.object({ error: z.object({ message: z.string() }) }).transform(({ error }) => error.message),
]);

/** The server's own words in an answer that is no 2xx. */
export function wordsOf(text: string): string {
  try {
    const content = refusal.safeParse(JSON.parse(text));
    if (content.success) return short(content.data);
  } catch {
    // no JSON: shown as it is
  }
  return short(text);
}

function short(text: string): string {
  const line = text.replaceAll(/\s+/g, " ").trim();
  if (line === "") return shown(undefined);
  return line.length > SHOWN_CHARACTERS ? `${line.slice(0, SHOWN_CHARACTERS)}…` : line;
}
