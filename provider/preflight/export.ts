/** The NFS export of a guest's root, held against what the guest needs of it. */

import type { GuestLink, Root } from "../boot/boot.js";
import { isBehind } from "../boot/network.js";
import type { Finding } from "./finding.js";
import { type Architecture, describe, type NfsFinding, type ProbeRequest, probeOnce } from "./nfs/index.js";

/** Where the export of a root is, as this host reaches it, and how the guest does. */
export type ExportPlace = Pick<Extract<Root, { type: "nfs" }>, "hostServer" | "port" | "mountPort" | "path"> &
  Pick<ProbeRequest, "guestNetwork">;

/** How the traffic of a guest on a link reaches the server that this host reaches at an address. */
export function guestNetworkOf(
  hostServer: string,
  link: GuestLink,
): NonNullable<ProbeRequest["guestNetwork"]> {
  if (link.kind === "user") return "user";
  return isBehind(hostServer, link) ? "bridged" : "routed";
}

/** What a check of an export knows of the guest. */
export interface GuestOfExport {
  /** Words of the kernel command line that may hold `init=`; absent while they are not known. */
  readonly words?: readonly string[];
  /** The kernel's processor, where it is known. */
  readonly arch?: Architecture;
  /** The initramfs that starts init: the person's own by rules of its own, ours by those of its script; absent: the kernel does. */
  readonly initramfs?: "own" | "generated";
}

/** What is wrong with an export. */
export interface ExportFinding extends Finding {
  readonly kind: NfsFinding["kind"];
}

/**
 * What to ask the server of a root.
 *
 * @param words Words of the kernel command line: of several `init=` the kernel takes the last (init/main.c, init_setup).
 */
export function probeRequestOf(
  { hostServer, port, mountPort, path, guestNetwork }: ExportPlace,
  words: readonly string[],
  arch?: Architecture,
): ProbeRequest {
  const init = words.findLast((word) => word.startsWith("init="))?.slice("init=".length);
  return { server: hostServer, port, mountPort, path, init, arch, guestNetwork };
}

/** Probes an export, once per process however many roots are on it; undefined when nothing is wrong with it. */
export async function exportFinding(
  place: ExportPlace,
  guest: GuestOfExport,
): Promise<ExportFinding | undefined> {
  const request: ProbeRequest = {
    ...probeRequestOf(place, guest.words ?? [], guest.arch),
    startedBy: guest.initramfs === "generated" ? "initramfs" : "kernel",
  };
  const finding = await probeOnce(request);
  if (finding.kind === "ok") return undefined;
  const aboutInit = isAboutInit(finding);
  if (aboutInit && guest.words === undefined) return undefined;
  return {
    ...describe(finding, request),
    kind: finding.kind,
    code: aboutInit ? "root-unusable" : "nfs-unreachable",
    certain: finding.certain && !(aboutInit && guest.initramfs === "own"),
  };
}

function isAboutInit({ kind }: NfsFinding): boolean {
  return kind.startsWith("init-") || kind === "interpreter-missing";
}
