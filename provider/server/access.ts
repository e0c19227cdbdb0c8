/** Who may talk to the server: callers with the token, that mean this server, and are no other site's page. */

import { createHash, timingSafeEqual } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import type { IncomingHttpHeaders } from "node:http";
import { isIP } from "node:net";
import { MicroVmError, messageOf } from "../errors.js";
import { Refusal } from "./refusal.js";

/** What every request is held against. */
export interface Access {
  /** Bearer token (RFC 6750) that each request must carry; absent where anyone may ask. */
  readonly token?: string;
  /** Host names, in lower case, by which callers may name this server beside `localhost` and addresses. */
  readonly hostNames: readonly string[];
}

const LEAST_TOKEN_LENGTH = 16;

/**
 * @param isOpen Whether the route tells nothing, so that no token is asked for.
 * @throws Refusal 401 or 403
 */
export function admit(headers: IncomingHttpHeaders, { token, hostNames }: Access, isOpen: boolean): void {
  assertMeant(headers.host, hostNames);
  assertNoOtherSite(headers);
  if (token === undefined || isOpen) return;
  const [, given] = /^Bearer +(\S+)$/i.exec(headers.authorization ?? "") ?? [];
  if (given === undefined) throw new Refusal(401, "expected a header Authorization: Bearer TOKEN, got none");
  if (!isSame(given, token))
    throw new Refusal(401, "the token in the header Authorization is not this server's");
}

/**
 * A page of any site can have its own name resolve to this host and then talk to it as its own (DNS rebinding); the Host header still
 * says that name. An address cannot be rebound.
 */
function assertMeant(host: string | undefined, hostNames: readonly string[]): void {
  const name = hostNameOf(host);
  if (name !== undefined) {
    if (isIP(name) !== 0 || name === "localhost" || name.endsWith(".localhost")) return;
    if (hostNames.includes(name)) return;
  }
  throw new Refusal(
    403,
    "the Host header names another server; call this one by its address, or start it with --allowed-host NAME",
  );
}

/** The name in a Host header, without port and brackets; undefined where there is none to be read. */
function hostNameOf(host: string | undefined): string | undefined {
  const [, bracketed, plain] =
    /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]{1,5})?$/i.exec(host ?? "") ?? [];
  return (bracketed ?? plain)?.toLowerCase().replace(/\.$/, "");
}

/** Some requests a browser sends for any page, without asking first: a POST without a body, for one. */
function assertNoOtherSite(headers: IncomingHttpHeaders): void {
  const { origin, host } = headers;
  const site = headers["sec-fetch-site"];
  const isOwn = origin === undefined || hostOf(origin) === host;
  if (isOwn && site !== "cross-site" && site !== "same-site") return;
  // A person who follows a link to the page does no harm.
  if (isOwn && headers["sec-fetch-mode"] === "navigate") return;
  throw new Refusal(403, "pages of other sites may not use this server");
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}

/** In a time that tells nothing of where they differ. */
function isSame(given: string, token: string): boolean {
  return timingSafeEqual(digestOf(given), digestOf(token));
}

function digestOf(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/**
 * The token in a file, without white space around it.
 *
 * @throws MicroVmError `config-file` when it cannot be read, others can read it, or it is too short to be a secret.
 */
export async function readToken(path: string): Promise<string> {
  let token: string;
  try {
    token = (await readFile(path, "utf8")).trim();
    if (((await stat(path)).mode & 0o007) !== 0) {
      throw unusableToken(`${path} to be closed to other users; run: chmod 600 ${path}`);
    }
  } catch (error) {
    if (error instanceof MicroVmError) throw error;
    throw unusableToken(`a readable file at ${path}, got: ${messageOf(error)}`, error);
  }
  if (token.length >= LEAST_TOKEN_LENGTH && /^[\x21-\x7e]+$/.test(token)) return token;
  throw unusableToken(
    `at least ${LEAST_TOKEN_LENGTH} printable ASCII characters without blanks in ${path}; make one with: openssl rand -hex 32 > ${path}`,
  );
}

function unusableToken(expected: string, cause?: unknown): MicroVmError {
  return new MicroVmError("config-file", `token_file: expected ${expected}`, { cause });
}

/** Whether only this host can connect to an address. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(?:\.[0-9]{1,3}){3}$/.test(host);
}
