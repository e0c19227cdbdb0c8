/**
 * The checks that can fail a preview: the NFS export and this host, and what was found out about the kernel while its
 * facts were gathered. Each check runs as soon as the inputs that it needs are known.
 */

import { linkOf, seenFromHost } from "../boot/network.js";
import type { GuestLink, TapLink } from "../boot/boot.js";
import { MicroVmError } from "../errors.js";
import type { InputName, InputValues } from "../spec/schema.js";
import { type ExportPlace, exportFinding, type GuestOfExport } from "./export.js";
import type { Finding } from "./finding.js";
import type { FactValues } from "./facts.js";
import { hostFindings } from "./host-findings.js";
import type { Processor } from "./kernel/image.js";
import type { TapNeeds } from "./tap-network.js";

/** What is known of a VM before its boot. */
export interface PreflightRequest {
  /** Values after defaults, as far as they are known. */
  readonly values: InputValues;
  readonly unknown: ReadonlySet<InputName>;
  readonly facts: FactValues;
  /** The kernel's processor, where it could be told. */
  readonly processor?: Processor;
  /** Whether this host may have to run a guest: else it is not looked at. */
  readonly mayBoot: boolean;
}

/** Looks at the export and the host side by side; 5 s at most, once per server and export in a process. */
export async function preflight(request: PreflightRequest): Promise<readonly Finding[]> {
  const { values, unknown, processor, mayBoot } = request;
  const place = exportPlace(request);
  const guest = {
    words: unknown.has("kernelArgs") ? undefined : values.kernelArgs,
    arch: processor,
    initramfs: initramfsOf(request),
  };
  const backend = unknown.has("backend") ? undefined : values.backend;
  const link = knownLink(request);
  const found = await Promise.all([
    place === undefined || link === undefined ? [] : exportFindings(place, guest, link),
    mayBoot && link?.kind === "tap" ? networkFindings(tapNeeds(request, link, place)) : [],
    mayBoot && link?.kind === "user" && link.passt !== undefined ? passtFindings() : [],
    mayBoot && (backend?.type === "qemu" || backend?.type === "cloud-hypervisor")
      ? hostFindings(backend, known(request, "memoryMiB"), known(request, "vmName"))
      : [],
  ]);
  return found.flat().filter((finding) => finding !== undefined);
}

function initramfsOf({ values, unknown, facts }: PreflightRequest): "own" | "generated" | undefined {
  if (values.initramfs !== undefined || unknown.has("initramfs")) return "own";
  return facts.generatedInitramfs === undefined ? undefined : "generated";
}

function known<Name extends InputName>(
  { values, unknown }: PreflightRequest,
  name: Name,
): InputValues[Name] | undefined {
  return unknown.has(name) ? undefined : values[name];
}

/** The link, once what decides the addresses on it is known. */
function knownLink({ values, unknown }: PreflightRequest): GuestLink | undefined {
  return unknown.has("backend") || unknown.has("network") ? undefined : linkOf(values);
}

async function exportFindings(
  place: ExportPlace,
  guest: GuestOfExport,
  link: GuestLink,
): Promise<readonly (Finding | undefined)[]> {
  if (link.kind !== "tap") return [await exportFinding(place, guest)];
  const { tapExportFindings } = await import("./tap-export.js");
  return await tapExportFindings(place, guest, link);
}

/** Loaded when first needed: a preview without taps never pays for it. */
async function networkFindings(needs: TapNeeds): Promise<readonly (Finding | undefined)[]> {
  const { tapFindings } = await import("./tap-network.js");
  return await tapFindings(needs);
}

/** Whether there is a passt that can serve a guest. */
async function passtFindings(): Promise<readonly Finding[]> {
  const { passtProgram } = await import("../host/network/passt.js");
  try {
    await passtProgram();
    return [];
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    const { code, text } = error;
    return [{ input: "network.passt", code, text, certain: true }];
  }
}

function tapNeeds(request: PreflightRequest, link: TapLink, place: ExportPlace | undefined): TapNeeds {
  const portForwards = known(request, "portForwards") ?? [];
  if (place === undefined) return { link, portForwards };
  const { hostServer: address, port, mountPort } = place;
  return {
    link,
    portForwards,
    server: { address, ports: [port, mountPort === "rpcbind" ? 111 : mountPort] },
  };
}

/** Where the export is, once every part of that is known; undefined on a disk root as well. */
function exportPlace(request: PreflightRequest): ExportPlace | undefined {
  const address = request.facts.nfsServerAddress;
  const port = known(request, "nfsPort");
  const mountPort = known(request, "nfsMountPort");
  const path = known(request, "nfsPath");
  const link = knownLink(request);
  // Made in this very up: there is nobody to ask yet.
  if (request.unknown.has("nfsExport")) return undefined;
  if (known(request, "useNfsRoot") !== true || known(request, "nfsServer") === undefined) return undefined;
  if (
    address === undefined ||
    port === undefined ||
    mountPort === undefined ||
    path === undefined ||
    link === undefined
  ) {
    return undefined;
  }
  return { hostServer: seenFromHost(address, link), port, mountPort, path };
}

/** What is checked before a boot, and the inputs that each check needs. */
const checks: readonly { readonly what: string; readonly needs: readonly InputName[] }[] = [
  {
    what: "what the kernel can boot",
    needs: ["kernel", "initramfs", "useNfsRoot", "ip", "statefulDiskMiB", "backend"],
  },
  { what: "the root disk's image", needs: ["useNfsRoot", "rootfs"] },
  {
    what: "the NFS export",
    needs: [
      "useNfsRoot",
      "nfsServer",
      "nfsPort",
      "nfsPath",
      "nfsMountPort",
      "nfsExport",
      "backend",
      "network",
    ],
  },
  { what: "the init program in the export", needs: ["kernelArgs"] },
  { what: "this host's hypervisor", needs: ["backend"] },
  { what: "this host's memory", needs: ["memoryMiB"] },
];

/**
 * The checks that a preview leaves out because inputs are not known yet, with those inputs, in words:
 * `the NFS export (nfsServer is not known yet)`.
 */
export function leftOut(values: InputValues, unknown: ReadonlySet<InputName>): readonly string[] {
  const isOnDisk = values.useNfsRoot !== true && !unknown.has("useNfsRoot");
  return checks.flatMap(({ what, needs }) => {
    if (isOnDisk && what === "the init program in the export") return [];
    const missing = needs.filter((name) => unknown.has(name));
    if (missing.length === 0) return [];
    return [`${what} (${missing.join(", ")} ${missing.length === 1 ? "is" : "are"} not known yet)`];
  });
}
