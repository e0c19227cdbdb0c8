/** The probe of an NFS export, as the guest's kernel will mount it. */

import type { Architecture, NfsFinding, NfsTarget } from "./finding.js";

/** How long a probe may take. */
export interface ProbeLimits {
  /** One connect, or one call with its answer, in milliseconds. Default 2000. */
  readonly stepMs: number;
  /** The whole probe, in milliseconds. Default 5000. */
  readonly totalMs: number;
}

/** What is to be probed. */
export interface ProbeRequest extends NfsTarget {
  /** Path of the init program (the value of `init=`); by default what the kernel tries by itself. */
  readonly init?: string;
  /** The guest's processor; without it, programs for any are good. */
  readonly arch?: Architecture;
  /**
   * How the guest's traffic reaches the server. `user` (default): from this host's address and any source port,
   * as QEMU's user network sends it. `routed`: from an address of its own and a source port below 1024.
   */
  readonly guestNetwork?: "user" | "routed";
  /** Aborts the probe: the promise is rejected with the signal's reason. */
  readonly signal?: AbortSignal;
  readonly limits?: ProbeLimits;
}

/**
 * Mounts the export over TCP as the guest's kernel will, looks for the init program, and unmounts. Never throws
 * but for an aborted `signal`: what the server does wrong is a finding. Takes at most 5 s and holds at most 1 MB.
 */
export function probeNfs(_request: ProbeRequest): Promise<NfsFinding> {
  return Promise.reject(new Error("the NFS probe is not written yet"));
}
