/**
 * The command server in a guest, as Arrakis' guests have it: it runs commands and takes and gives files. It is the guest's own, so
 * what it answers is checked like anything that comes from outside.
 */

import { z } from "zod";
import { HttpClient, type HttpRequest, HttpStatusError } from "../backends/http.js";
import { MicroVmError, messageOf, shown, systemCodeOf } from "../errors.js";
import { Refusal } from "./refusal.js";
import {
  type commandRequest,
  commandResponse,
  downloadResponse,
  type uploadRequest,
  uploadResponse,
} from "./wire.js";

/** Where a guest's command server is reached from this host. */
export interface GuestAgent {
  readonly vmName: string;
  /** IPv4 address: the guest's own, or this host's with a forwarded port. */
  readonly address: string;
  readonly port: number;
  /** How long a guest that has just booted may take to start it, in seconds; 10 by default. */
  readonly patienceSeconds?: number;
  /** Ends what is asked of it early. */
  readonly signal?: AbortSignal;
}

const PATIENCE_SECONDS = 10;
const POLL_MILLISECONDS = 100;

/** Arrakis' limit for a command, and ours for one that names none. */
const DEFAULT_TIMEOUT_SECONDS = 30;
const FILES_TIMEOUT_SECONDS = 30;

/**
 * Runs a command in a guest's shell. A command that fails is no error: `error` says how it ended.
 *
 * @throws MicroVmError `guest-agent`: nobody answers, not within the time (the command then goes on in the guest), or the command server
 * refuses, or answers what it should not; `invalid-input`: an empty command. Refusal 503 when it was ended early.
 */
export async function runInGuest(
  agent: GuestAgent,
  { cmd, blocking = true, timeoutSeconds = DEFAULT_TIMEOUT_SECONDS }: z.output<typeof commandRequest>,
): Promise<z.output<typeof commandResponse>> {
  if (cmd.trim() === "") throw new MicroVmError("invalid-input", "expected a command", { input: "cmd" });
  return await ask(agent, {
    method: "POST",
    path: "/cmd",
    body: { cmd, blocking },
    answer: commandResponse,
    timeoutSeconds,
  });
}

/**
 * Writes text files in a guest. A relative path counts from the command server's own folder (/tmp/server_files).
 *
 * @throws MicroVmError `invalid-input`: no file, or a path that is none; else as {@link runInGuest}.
 */
export async function uploadToGuest(
  agent: GuestAgent,
  { files }: z.output<typeof uploadRequest>,
): Promise<z.output<typeof uploadResponse>> {
  if (files.length === 0) throw new MicroVmError("invalid-input", "no files provided", { input: "files" });
  files.forEach(({ path }, index) => assertGuestPath(path, `files.${index}.path`));
  await ask(agent, {
    method: "POST",
    path: "/files",
    body: { files },
    // Arrakis' answers without a body.
    answer: uploadResponse.optional(),
    timeoutSeconds: FILES_TIMEOUT_SECONDS,
  });
  return {};
}

/**
 * Reads text files of a guest; one that cannot be read has an `error` instead of its content. Arrakis' command server reads below its
 * own folder alone: there `/a` is `/tmp/server_files/a`.
 *
 * @param paths Separated by commas, as in the request.
 * @throws MicroVmError as {@link uploadToGuest}
 */
export async function downloadFromGuest(
  agent: GuestAgent,
  paths: string,
): Promise<z.output<typeof downloadResponse>> {
  for (const path of paths.split(",")) assertGuestPath(path, "paths");
  return await ask(agent, {
    method: "GET",
    path: `/files?paths=${encodeURIComponent(paths)}`,
    answer: downloadResponse,
    timeoutSeconds: FILES_TIMEOUT_SECONDS,
  });
}

/** The kernel's own limit (PATH_MAX), less its NUL. */
const MOST_PATH_BYTES = 4095;

function assertGuestPath(path: string, input: string): void {
  const isPath =
    path !== "" &&
    Buffer.byteLength(path) <= MOST_PATH_BYTES &&
    /^\P{Cc}*$/u.test(path) &&
    !path.split("/").includes("..");
  if (isPath) return;
  const expected = `a path of a file in the guest, of at most ${MOST_PATH_BYTES} bytes, without .. and control characters`;
  throw new MicroVmError("invalid-input", `expected ${expected}, got ${shown(path)}`, { input });
}

async function ask<T>(agent: GuestAgent, given: HttpRequest<T>): Promise<T> {
  const { vmName, address, port, patienceSeconds = PATIENCE_SECONDS, signal } = agent;
  const early = signal === undefined ? {} : { signal };
  const request = { ...given, ...early };
  const client = await HttpClient.open({
    server: `the command server in the guest of ${vmName}`,
    origin: `http://${address}:${port}`,
  });
  const hello = {
    method: "GET",
    path: "/",
    answer: z.undefined(),
    timeoutSeconds: Math.max(1, patienceSeconds),
    ...early,
  } as const;
  try {
    await told(vmName, hello, async () => await untilUp(client, hello));
    return await told(vmName, request, async () => await client.send(request));
  } finally {
    client.close();
  }
}

/** Waits until the command server answers anything: what is asked of it is sent once, when it is there. */
async function untilUp(client: HttpClient, hello: HttpRequest<undefined>): Promise<void> {
  const deadline = performance.now() + hello.timeoutSeconds * 1000;
  for (;;) {
    try {
      return await client.send(hello);
    } catch (error) {
      if (!(error instanceof MicroVmError)) throw error;
      // It has no such page, but it is there.
      if (error.cause instanceof HttpStatusError) return;
      if (!isNobodyThere(error.cause) || performance.now() > deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
  }
}

async function told<T>(vmName: string, request: HttpRequest<unknown>, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    if (request.signal?.aborted === true) throw new Refusal(503, endedEarly(request), "interrupted");
    throw new MicroVmError("guest-agent", `${vmName}: ${reasonOf(error, request)}`, { cause: error });
  }
}

function endedEarly({ path }: HttpRequest<unknown>): string {
  const rest = path === "/cmd" ? "the command goes on in the guest" : "ask again when it is back";
  return `the server is being stopped; ${rest}`;
}

/** Codes of a connection that nobody took, or that ended before the answer: QEMU takes connections for a guest that does not listen. */
const nobodyThere: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTUNREACH",
  "EPIPE",
  "UND_ERR_SOCKET",
  "UND_ERR_CONNECT_TIMEOUT",
]);

function isNobodyThere(cause: unknown): boolean {
  return nobodyThere.has(systemCodeOf(cause) ?? "");
}

function reasonOf(error: MicroVmError, { path, timeoutSeconds }: HttpRequest<unknown>): string {
  const { cause } = error;
  if (cause instanceof HttpStatusError) return error.text;
  if (cause instanceof DOMException && cause.name === "TimeoutError") {
    const goesOn = path === "/cmd" ? "; the command goes on there" : "";
    return `the guest's command server has not answered within ${timeoutSeconds} s${goesOn}`;
  }
  if (isNobodyThere(cause)) {
    return `no command server answers in the guest (${messageOf(cause)}): it is not up yet, or this guest has none`;
  }
  return error.text;
}
