/** What a server says before it is asked for a VM: whether it is there, what it can do, which VMs it has. Each is asked for once for many VMs. */

import { type ArrakisApi, apiOf, type Health, statusOf } from "../backends/arrakis/api.js";
import { stateOf } from "../backends/arrakis/outputs.js";
import type { ArrakisBackend, ObservedState } from "../backends/backend.js";
import { MicroVmError } from "../errors.js";
import type { Vm } from "../server/wire.js";
import type { Finding } from "./finding.js";

/** What was found of a server. */
export type ServerLook =
  | { readonly isThere: true; readonly api: ArrakisApi; readonly health: Health | undefined }
  | { readonly isThere: false; readonly finding: Finding };

/** How long a server may take to say that it is there, in seconds. */
const HEALTH_SECONDS = 2;
/** How long an answer counts, in milliseconds from when it came: the engine checks hundreds of resources one after the other. */
const FRESH_MILLISECONDS = { health: 10_000, list: 500 } as const;

interface Answer<T> {
  readonly answer: Promise<T>;
  freshUntil: number;
}

const looks = new Map<string, Answer<ServerLook>>();
const lists = new Map<string, Answer<readonly Vm[]>>();

/** Asks a server whether it is there, and what it can do; 2 s at most, once for all its VMs. */
export async function lookAtServer(backend: ArrakisBackend): Promise<ServerLook> {
  return await shared(looks, backend, FRESH_MILLISECONDS.health, look);
}

/** The VMs of a server that is there. */
export async function listOnServer(backend: ArrakisBackend): Promise<readonly Vm[]> {
  return await shared(lists, backend, FRESH_MILLISECONDS.list, async () => (await apiOf(backend)).list());
}

/**
 * What is there of a VM.
 *
 * @throws MicroVmError when the server cannot tell.
 */
export async function observeOnServer(backend: ArrakisBackend, vmName: string): Promise<ObservedState> {
  const found = await lookAtServer(backend);
  if (!found.isThere) throw new MicroVmError("server-failed", found.finding.text);
  const vm = (await listOnServer(backend)).find((other) => other.vmName === vmName);
  return vm === undefined ? "gone" : stateOf(vm);
}

async function look(backend: ArrakisBackend): Promise<ServerLook> {
  try {
    const api = await apiOf(backend);
    return { isThere: true, api, health: await api.health(HEALTH_SECONDS) };
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    const { code, input, text } = error;
    const status = statusOf(error);
    const place = status === 401 || status === 403 ? "backend.token" : (input ?? "backend.url");
    return { isThere: false, finding: { input: place, code, text, certain: true } };
  }
}

async function shared<T>(
  answers: Map<string, Answer<T>>,
  backend: ArrakisBackend,
  freshMilliseconds: number,
  ask: (backend: ArrakisBackend) => Promise<T>,
): Promise<T> {
  const key = JSON.stringify([backend.url, backend.token, backend.caFile]);
  const found = answers.get(key);
  if (found !== undefined && performance.now() < found.freshUntil) return await found.answer;
  const asked: Answer<T> = { answer: ask(backend), freshUntil: Infinity };
  answers.set(key, asked);
  try {
    return await asked.answer;
  } finally {
    asked.freshUntil = performance.now() + freshMilliseconds;
  }
}
