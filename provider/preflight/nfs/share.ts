/** One probe per server and export in a process, however many VMs have their root there. */

import type { NfsFinding } from "./finding.js";
import { type ProbeRequest, probeNfs } from "./probe.js";

/** A finding is good for this long, in milliseconds: a preview, not the life of a server. */
const FRESH_MS = 60_000;

interface SharedProbe {
  readonly startedMs: number;
  readonly finding: Promise<NfsFinding>;
}

const probesOfExports = new Map<string, SharedProbe>();
const firstProbesOfServers = new Map<string, SharedProbe>();

/**
 * {@link probeNfs}, shared by all callers in this process that ask the same within 60 s. What the first probe of a
 * server finds wrong with the server itself is the answer for all of its exports, so that a dead server costs
 * its time once. Probes of different servers run side by side. `signal` ends the wait of this caller only.
 */
export function probeOnce({ signal, ...request }: ProbeRequest): Promise<NfsFinding> {
  const probe = shared(probesOfExports, exportKey(request), () => probeExport(request));
  return signal === undefined ? probe : withSignal(probe, signal);
}

/** Forgets every finding: the next {@link probeOnce} asks the server again. */
export function forgetProbes(): void {
  probesOfExports.clear();
  firstProbesOfServers.clear();
}

async function probeExport(request: ProbeRequest): Promise<NfsFinding> {
  let isFirst = false;
  const first = await shared(firstProbesOfServers, serverKey(request), () => {
    isFirst = true;
    return probeNfs(request);
  });
  return isFirst || isOfServer(first) ? first : probeNfs(request);
}

function shared(
  probes: Map<string, SharedProbe>,
  key: string,
  start: () => Promise<NfsFinding>,
): Promise<NfsFinding> {
  const known = probes.get(key);
  if (known !== undefined && performance.now() - known.startedMs < FRESH_MS) return known.finding;
  // What is stale serves nobody: a process that lives long would keep it for good.
  for (const [other, { startedMs }] of probes) {
    if (performance.now() - startedMs < FRESH_MS) break;
    probes.delete(other);
  }
  const finding = start();
  probes.delete(key);
  probes.set(key, { startedMs: performance.now(), finding });
  return finding;
}

/** Steps before the export's path comes in. */
const SERVER_STEPS = new Set(["connect", "NULL", "GETPORT"]);

function isOfServer(finding: NfsFinding): boolean {
  if (!("service" in finding)) return false;
  return "step" in finding ? SERVER_STEPS.has(finding.step) : true;
}

function serverKey({ server, port, mountPort, rpcbindPort, guestNetwork, limits }: ProbeRequest): string {
  return JSON.stringify([server, port, mountPort, rpcbindPort, guestNetwork, limits]);
}

function exportKey(request: ProbeRequest): string {
  return JSON.stringify([serverKey(request), request.path, request.init, request.arch, request.startedBy]);
}

function withSignal<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
