/** A client of one HTTP server that speaks JSON, at a unix socket or a URL. Nothing is tried twice. */

import type { Client } from "undici";
import { z } from "zod";

import { MicroVmError, messageOf, shown } from "../errors.js";

/** Where the server is. */
export interface HttpPlace {
  /** Who answers there, for messages: `Cloud Hypervisor`. */
  readonly server: string;
  /** Absolute path of a unix socket, instead of the URL's host and port. */
  readonly socketPath?: string;
  /** Scheme, host and port: `http://localhost`. */
  readonly origin: string;
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

/** Longest answer that is read, in bytes. */
const MOST_BYTES = 4 * 1024 * 1024;
const SHOWN_CHARACTERS = 500;

/** One connection, kept between requests. */
export class HttpClient {
  private constructor(
    readonly client: Client,
    readonly place: HttpPlace,
  ) {}

  /** Loads the HTTP library and makes a client; nothing is sent before the first request. */
  static async open(place: HttpPlace): Promise<HttpClient> {
    const { Client } = await import("undici");
    const { origin, socketPath } = place;
    // How long an answer may take, each request says.
    const timeouts = { headersTimeout: 0, bodyTimeout: 0 };
    return new HttpClient(new Client(origin, { socketPath, maxResponseSize: MOST_BYTES, ...timeouts }), place);
  }

  /**
   * Sends a request and reads its answer.
   *
   * @throws MicroVmError `vmm-failed`: nobody answers (its `cause` is the system's error), not within the time, with another status than
   * 2xx (its `cause` is an {@link HttpStatusError}), or with something else than `answer` (the text shows what).
   */
  async send<T>({ method, path, body, answer, timeoutSeconds }: HttpRequest<T>): Promise<T> {
    const what = `${method} ${path}`;
    const signal = AbortSignal.timeout(timeoutSeconds * 1000);
    let status: number;
    let text: string;
    try {
      const response = await this.client.request({
        method,
        path,
        signal,
        ...(body === undefined
          ? {}
          : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
      });
      status = response.statusCode;
      text = await response.body.text();
    } catch (error) {
      const why = signal.aborted ? `no answer within ${timeoutSeconds} s` : messageOf(error);
      throw this.#error(`${what}: ${why}`, error);
    }
    if (status < 200 || status > 299) {
      throw this.#error(
        `${what} was answered with ${wordsOf(text)} (status ${status})`,
        new HttpStatusError(status, text),
      );
    }
    return this.#parsed(what, answer, text);
  }

  /** Ends the connection; the server goes on. */
  close(): void {
    // A request that is under way is told of by its own error.
    void this.client.destroy();
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
    const { server, socketPath, origin } = this.place;
    return new MicroVmError("vmm-failed", `${server} at ${socketPath ?? origin}: ${why}`, { cause });
  }
}

/** A list of texts is a chain of causes, outermost first (Cloud Hypervisor). */
function wordsOf(text: string): string {
  try {
    const content = z.array(z.string()).min(1).safeParse(JSON.parse(text));
    if (content.success) return short(content.data.join(": "));
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
