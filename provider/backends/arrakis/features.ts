/** What a server can do beyond Arrakis' own API, and what it must be asked for only then: an Arrakis ignores fields that it does not know. Pure. */

import { isIPv4 } from "node:net";

import { isThisHost } from "../../boot/network.js";
import type { features as known, StartVmRequest } from "../../server/wire.js";
import type { Failure } from "../../spec/validate.js";
import type { Health } from "./api.js";

type Feature = (typeof known)[number];

/** Fields that a server must say it knows. */
const needed = {
  nfsMountPort: "nfsMountPort",
  nfsOptions: "nfsOptions",
  kernelArgs: "kernelArgs",
  guestAccess: "guestAccess",
  // Arrakis has the field, and never uses it.
  entryPoint: "entryPoint",
  acceptStaleRoot: "snapshots",
} as const satisfies { readonly [Name in keyof StartVmRequest]?: Feature };

/** Whether a server that says so can do something. */
export function can(health: Health | undefined, feature: Feature): boolean {
  return health?.features?.includes(feature) === true;
}

/** What of a request the server could not do, or would do in another way than is meant. */
export function unsupportedFailures(health: Health | undefined, start: StartVmRequest): Failure[] {
  return [...fieldFailures(health, start), ...addressFailures(health, start)];
}

function fieldFailures(health: Health | undefined, start: StartVmRequest): Failure[] {
  const wanted = Object.entries(needed) as [keyof typeof needed, Feature][];
  const failures = wanted.flatMap(([input, feature]): Failure[] => {
    if (start[input] === undefined || can(health, feature)) return [];
    const text = `not supported: this server does not say that it knows ${input}, and an Arrakis would ignore it; leave it out`;
    return [{ input, code: "not-supported", text }];
  });
  // Arrakis has snapshots, and names no features at all.
  const hasSnapshots = health?.features === undefined || can(health, "snapshots");
  if (start.snapshotId === undefined || hasSnapshots) return failures;
  const text = "not supported: this server restores no snapshots; leave it out";
  return [...failures, { input: "snapshotId", code: "not-supported", text }];
}

/** A server of ours resolves names and knows its own addresses; an Arrakis hands the text on to the guest's kernel. */
function addressFailures(health: Health | undefined, { useNfsRoot, nfsServer }: StartVmRequest): Failure[] {
  if (useNfsRoot !== true || nfsServer === undefined || can(health, "useNfsRoot")) return [];
  if (!isIPv4(nfsServer)) {
    const text = `expected an IPv4 address, got "${nfsServer}": this server hands it to the guest's kernel, which resolves no names`;
    return [{ input: "nfsServer", text }];
  }
  if (!isThisHost(nfsServer)) return [];
  const text = `expected the address of the NFS server on the guest's link, got ${nfsServer}: this server hands it to the guest, for which it is the guest itself`;
  return [{ input: "nfsServer", text }];
}
