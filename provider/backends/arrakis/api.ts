/** The requests of Arrakis' REST API, one function each. */

import { readFile } from "node:fs/promises";

import { z } from "zod";

import { type ErrorCode, errorKinds, MicroVmError, messageOf } from "../../errors.js";
import {
  commandResponse,
  downloadResponse,
  type DryRun,
  dryRunResponse,
  errorResponse,
  health,
  snapshotResponse,
  type StartVmRequest,
  uploadResponse,
  vm,
  type Vm,
  vmList,
} from "../../server/wire.js";
import { isInputName } from "../../spec/validate.js";
import type { ArrakisBackend } from "../backend.js";
import { HttpClient, type HttpRequest, HttpStatusError } from "../http.js";

/** What GET /v1/health answers. */
export type Health = z.output<typeof health>;

/** A file of the guest: its content, or why there is none. */
export type DownloadedFile = NonNullable<z.output<typeof downloadResponse>["files"]>[number];

/** How long an answer that needs no VM may take, in seconds. */
const SHORT_SECONDS = 10;
/** Arrakis asks the guest's command server, and gives up after 30 s. */
const GUEST_SECONDS = 40;
/** Cloud Hypervisor writes the guest's memory meanwhile. */
const SNAPSHOT_SECONDS = 600;
/** Changes nothing, so it may be sent again when the connection broke. */
const REPEATS = 2;
/** A VM is made while others are listed. */
const CONNECTIONS = 8;

const apis = new Map<string, Promise<ArrakisApi>>();

/**
 * The API of a server, its connections kept as long as this process.
 *
 * @throws MicroVmError `file-unusable`, input `backend.caFile`.
 */
export function apiOf(backend: ArrakisBackend): Promise<ArrakisApi> {
  const key = JSON.stringify([backend.url, backend.token, backend.caFile]);
  let api = apis.get(key);
  if (api === undefined) {
    api = ArrakisApi.open(backend);
    apis.set(key, api);
    // A file that was not there may be there the next time.
    api.catch(() => apis.delete(key));
  }
  return api;
}

/** A server. Each function throws MicroVmError `server-failed` (or what a server of ours names) when it does not answer, or not with 2xx. */
export class ArrakisApi {
  private constructor(
    readonly http: HttpClient,
    /** Path before `/v1`, where a proxy gives it one. */
    readonly prefix: string,
  ) {}

  /** Nothing is sent yet. */
  static async open({ url, token, caFile }: ArrakisBackend): Promise<ArrakisApi> {
    const { protocol, origin, pathname } = new URL(url);
    const isSocket = protocol === "unix:";
    const http = await HttpClient.open({
      server: "the Arrakis server",
      code: "server-failed",
      connections: CONNECTIONS,
      token,
      ...(isSocket ? { origin: "http://localhost", socketPath: decodeURI(pathname) } : { origin }),
      ...(caFile === undefined ? {} : { ca: await certificatesIn(caFile) }),
    });
    return new ArrakisApi(http, isSocket ? "" : pathname.replace(/\/+$/, ""));
  }

  /** GET /v1/health; undefined from a server that is too old to have it. */
  async health(timeoutSeconds: number): Promise<Health | undefined> {
    return await orAbsent(
      this.#send({ method: "GET", path: this.#path("/health"), answer: health, timeoutSeconds }),
    );
  }

  /** GET /v1/vms: every VM of the server. */
  async list(): Promise<readonly Vm[]> {
    const path = this.#path("/vms");
    const request = { method: "GET", path, answer: vmList, timeoutSeconds: SHORT_SECONDS } as const;
    return (await this.#send({ ...request, repeats: REPEATS })).vms ?? [];
  }

  /** The VM of a name, by the list: to ask for one that is not there is a failure of Arrakis itself (status 500). */
  async find(vmName: string): Promise<Vm | undefined> {
    return (await this.list()).find((found) => found.vmName === vmName);
  }

  /** POST /v1/vms. */
  async start(body: StartVmRequest, timeoutSeconds: number, signal: AbortSignal): Promise<Vm> {
    const path = this.#path("/vms");
    return await this.#send({ method: "POST", path, body, answer: vm, timeoutSeconds, signal });
  }

  /** POST /v1/vms?dryRun=true: what a server of ours would boot. */
  async dryRun(body: StartVmRequest): Promise<DryRun> {
    const path = this.#path("/vms?dryRun=true");
    return await this.#send({
      method: "POST",
      path,
      body,
      answer: dryRunResponse,
      timeoutSeconds: SHORT_SECONDS,
    });
  }

  /** PATCH /v1/vms/{name}. */
  async setState(
    vmName: string,
    status: "stopped" | "paused" | "resume",
    timeoutSeconds: number,
  ): Promise<void> {
    const path = this.#vmPath(vmName);
    await this.#send({ method: "PATCH", path, body: { status }, answer: z.undefined(), timeoutSeconds });
  }

  /** DELETE /v1/vms/{name}. */
  async destroy(vmName: string, timeoutSeconds: number): Promise<void> {
    const path = this.#vmPath(vmName);
    await this.#send({ method: "DELETE", path, answer: z.undefined(), timeoutSeconds });
  }

  /** POST /v1/vms/{name}/snapshots. */
  async takeSnapshot(vmName: string, snapshotId: string, signal: AbortSignal): Promise<string> {
    const path = this.#vmPath(vmName, "/snapshots");
    const body = { snapshotId };
    const timeoutSeconds = SNAPSHOT_SECONDS;
    const request = { method: "POST", path, body, answer: snapshotResponse, timeoutSeconds } as const;
    return (await this.#send({ ...request, signal })).snapshotId;
  }

  /** POST /v1/vms/{name}/cmd: runs a command in the guest's shell and waits for its end. */
  async command(
    vmName: string,
    cmd: string,
    timeoutSeconds = GUEST_SECONDS,
    signal?: AbortSignal,
  ): Promise<z.output<typeof commandResponse>> {
    const path = this.#vmPath(vmName, "/cmd");
    const body = { cmd, blocking: true };
    return await this.#send({
      method: "POST",
      path,
      body,
      answer: commandResponse,
      timeoutSeconds,
      ...(signal === undefined ? {} : { signal }),
    });
  }

  /** POST /v1/vms/{name}/files. */
  async upload(vmName: string, files: readonly { path: string; content: string }[]): Promise<void> {
    const path = this.#vmPath(vmName, "/files");
    const body = { files };
    const request = { method: "POST", path, body, answer: uploadResponse } as const;
    const { error } = await this.#send({ ...request, timeoutSeconds: GUEST_SECONDS });
    if (error) throw new MicroVmError("guest-agent", `${vmName}: the files could not be written: ${error}`);
  }

  /** GET /v1/vms/{name}/files. The paths are joined with commas, so that none may hold one. */
  async download(vmName: string, paths: readonly string[]): Promise<readonly DownloadedFile[]> {
    const path = `${this.#vmPath(vmName, "/files")}?paths=${encodeURIComponent(paths.join(","))}`;
    const request = { method: "GET", path, answer: downloadResponse } as const;
    return (await this.#send({ ...request, timeoutSeconds: GUEST_SECONDS })).files ?? [];
  }

  async #send<T>(request: HttpRequest<T>): Promise<T> {
    try {
      return await this.http.send(request);
    } catch (error) {
      const { socketPath, origin } = this.http.place;
      throw asItSays(error, socketPath ?? origin);
    }
  }

  #path(rest: string): string {
    return `${this.prefix}/v1${rest}`;
  }

  #vmPath(vmName: string, rest = ""): string {
    return this.#path(`/vms/${encodeURIComponent(vmName)}${rest}`);
  }
}

/** An error of a server of ours carries a code of this package's, and often names the input: it is that error, from there. */
function asItSays(error: unknown, server: string): unknown {
  if (!(error instanceof MicroVmError) || !(error.cause instanceof HttpStatusError)) return error;
  const { cause } = error;
  const { code, message = "" } = errorIn(cause.text);
  if (code === undefined) return error;
  const [input = ""] = /^[A-Za-z.\d]+(?=: )/.exec(message) ?? [];
  const isInput = isInputName(input.split(".")[0] ?? "");
  const text = (isInput ? message.slice(input.length + 2) : message).replace(` [${code}]`, "");
  return new MicroVmError(code, `${text} (so says the server at ${server})`, {
    cause,
    ...(isInput ? { input } : {}),
  });
}

function errorIn(body: string): { readonly code?: ErrorCode; readonly message?: string } {
  try {
    const { code, message } = errorResponse.parse(JSON.parse(body)).error;
    return code !== undefined && Object.hasOwn(errorKinds, code) ? { code: code as ErrorCode, message } : {};
  } catch {
    return {}; // another program's answer, or of an Arrakis
  }
}

/** The HTTP status that an error of this API tells of, if one came. */
export function statusOf(error: unknown): number | undefined {
  if (!(error instanceof MicroVmError)) return undefined;
  return error.cause instanceof HttpStatusError ? error.cause.status : undefined;
}

async function orAbsent<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw error;
  }
}

async function certificatesIn(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new MicroVmError(
      "file-unusable",
      `expected a readable file of PEM certificates at ${path}, got: ${messageOf(error)}`,
      { input: "backend.caFile", cause: error },
    );
  }
}
