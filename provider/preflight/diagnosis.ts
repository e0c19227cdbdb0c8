/** All that preflight knows of a host, a kernel and an NFS root, good or bad, without a VM to ask it for. */

import { dirname } from "node:path";

import type { GuestLink, TapLink } from "../boot/boot.js";
import { linkOf, seenFromHost } from "../boot/network.js";
import { type ErrorCode, errorKinds, MicroVmError } from "../errors.js";
import { agentFsProgram } from "../exports/agentfs.js";
import { assertGanesha } from "../exports/ganesha.js";
import { mkfsProgram } from "../host/disk.js";
import { findBusybox } from "../host/initramfs/busybox.js";
import { assertMayAdminister, networkProgram } from "../host/network/command.js";
import { passtProgram } from "../host/network/passt.js";
import { controlSocketPath } from "../host/runtime-directory.js";
import { inspectStateDirectory } from "../host/state-directory.js";
import { defaultMountPort, defaults } from "../spec/defaults.js";
import { resolveServer } from "./address.js";
import { usableCloudHypervisor } from "./cloud-hypervisor.js";
import { exportFinding, type ExportPlace, type GuestOfExport, probeRequestOf } from "./export.js";
import type { Finding } from "./finding.js";
import { findKvm, qemuHost, usableQemu } from "./host.js";
import { abilitiesOf, nfsRootOf } from "./kernel/abilities.js";
import { GUEST_PROCESSOR } from "./kernel/image.js";
import { inspectKernel, type KernelFacts } from "./kernel/inspect.js";
import { hostMemory, memoryFinding } from "./memory.js";
import { describe, probeOnce } from "./nfs/index.js";
import { tapExportFindings } from "./tap-export.js";
import { tapFindings } from "./tap-network.js";

/** One thing that was looked at. */
export interface Check {
  /** What was looked at: `"QEMU"`, `"NFS root"`. */
  readonly subject: string;
  /** `warning`: some VMs cannot be run here, or not as well. `failure`: none, or none with what was named. */
  readonly status: "pass" | "warning" | "failure";
  /** What was found, and unless it passes, what to do. */
  readonly text: string;
  /** Code of the error that a preview or an up would end with. */
  readonly code?: ErrorCode;
  /** What to do about errors of this code. */
  readonly remedy?: string;
}

/** What is to be looked at. */
export interface DiagnosisRequest {
  readonly stateDirectory: string;
  /** Absolute path of a kernel image; absent: none is looked at. */
  readonly kernel?: string;
  /** An NFS root; absent: none is looked at. */
  readonly nfs?: {
    /** Host name or IPv4 address. */
    readonly server: string;
    readonly port: number;
    /** As `nfsMountPort`, with its default. */
    readonly mountPort?: number | "rpcbind";
    readonly path: string;
  };
}

type Weight = Exclude<Check["status"], "pass">;

/** Looks at everything. Changes nothing on the host but for making the folder for sockets, which is empty. */
export async function diagnose(request: DiagnosisRequest): Promise<readonly Check[]> {
  const [backends, rest, kernel] = await Promise.all([
    backendChecks(),
    hostChecks(request.stateDirectory),
    request.kernel === undefined ? undefined : kernelCheck(request.kernel),
  ]);
  const nfs =
    request.nfs === undefined ? [] : await nfsChecks(request.nfs, kernel?.initramfs, backends.onTaps);
  return [...backends.checks, ...rest, ...(kernel === undefined ? [] : [kernel.check]), ...nfs];
}

/** Runs one look; an error of ours is a finding of the given weight. */
async function look(subject: string, weight: Weight, ask: () => string | Promise<string>): Promise<Check> {
  try {
    return { subject, status: "pass", text: await ask() };
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    const { text, code } = error;
    return { subject, status: weight, text, code, remedy: errorKinds[code].remedy };
  }
}

/** What is certain keeps a guest from booting. */
function toCheck(subject: string, { input, code = "host-unusable", text, certain }: Finding): Check {
  const status = certain ? "failure" : "warning";
  return { subject, status, text: `${input}: ${text}`, code, remedy: errorKinds[code].remedy };
}

/** The two local back ends: one that works is enough. */
async function backendChecks(): Promise<{ readonly checks: readonly Check[]; readonly onTaps: boolean }> {
  const [kvm, qemu, microvm, cloudHypervisor] = await Promise.all([
    findKvm(),
    look("QEMU", "failure", async () => {
      const { program, accelerator } = await qemuHost(defaults.backend);
      return `${program.path}, version ${program.version}, runs guests by ${accelerator}`;
    }),
    look("QEMU's machine microvm", "warning", async () => {
      await usableQemu({ ...defaults.backend, machine: "microvm" });
      return 'backend { type: "qemu", machine: "microvm" } can be used';
    }),
    look("Cloud Hypervisor", "failure", async () => {
      const { path, version } = await usableCloudHypervisor({ type: "cloud-hypervisor" });
      return `${path}, version ${version}`;
    }),
  ]);
  const [taps, passt] = await Promise.all([
    tapChecks(),
    look("passt, in place of taps", "warning", () => passtProgram()),
  ]);
  const hasTaps = taps.every(({ status }) => status !== "failure");
  const runsQemu = qemu.status === "pass";
  const hasNetwork = hasTaps || passt.status === "pass";
  const runsCloudHypervisor = kvm.usable && hasNetwork && cloudHypervisor.status === "pass";
  const kvmCheck: Check = kvm.usable
    ? { subject: "KVM", status: "pass", text: "can run guests" }
    : {
        subject: "KVM",
        status: "failure",
        text: `${kvm.why}. QEMU emulates the guest's processor instead, which is slower, and Cloud Hypervisor runs no guest. Use a host with hardware virtualization, or let this user open its device`,
        code: "host-unusable",
        remedy: errorKinds["host-unusable"].remedy,
      };
  const forQemu = [qemu, ...(runsQemu ? [microvm] : [])];
  const forCloudHypervisor = [kvmCheck, cloudHypervisor, ...taps, passt];
  return {
    checks: [
      ...(runsCloudHypervisor ? forQemu.map(softened) : forQemu),
      ...(runsQemu || runsCloudHypervisor ? forCloudHypervisor.map(softened) : forCloudHypervisor),
    ],
    onTaps: runsCloudHypervisor && hasTaps,
  };
}

/** What one back end lacks is no failure while the other works. */
function softened(check: Check): Check {
  return check.status === "failure" ? { ...check, status: "warning" } : check;
}

/** What the network of a guest on a tap takes. */
async function tapChecks(): Promise<readonly Check[]> {
  const programs = await Promise.all([
    look("ip", "failure", () => networkProgram("ip")),
    look("nft", "warning", () => networkProgram("nft")),
    look("Rights for taps", "failure", () => {
      assertMayAdminister();
      return "this process may change the network (CAP_NET_ADMIN)";
    }),
  ]);
  // Each of these three is the first thing that is looked at there as well.
  if (programs.some(({ status }) => status !== "pass")) return programs;
  const link = tapLinkOf();
  const findings = await tapFindings({ link, portForwards: [] });
  if (findings.length > 0) return [...programs, ...findings.map((finding) => toCheck("Taps", finding))];
  const text = `the bridge ${link.bridge} (${link.gatewayAddress}) can be made, and guests on it reach beyond this host`;
  return [...programs, { subject: "Taps", status: "pass", text }];
}

async function hostChecks(stateDirectory: string): Promise<readonly Check[]> {
  return await Promise.all([
    memoryCheck(),
    look("Stateful disks", "warning", () => mkfsProgram()),
    look("Initramfs", "warning", async () => (await findBusybox(GUEST_PROCESSOR)).path),
    look("AgentFs", "warning", () => agentFsProgram(undefined)),
    look("NfsExport", "warning", () => {
      assertGanesha();
      return "nfs-ganesha and what it takes are here";
    }),
    look("State directory", "failure", async () => {
      const isThere = await inspectStateDirectory(stateDirectory);
      return isThere ? stateDirectory : `${stateDirectory} will be made with the first VM`;
    }),
    look("Sockets", "failure", async () => dirname(await controlSocketPath("0".repeat(16)))),
  ]);
}

async function memoryCheck(): Promise<Check> {
  const subject = "Memory";
  const memory = await hostMemory();
  if (memory === undefined) {
    return { subject, status: "warning", text: "/proc does not tell how much there is; mount it to know" };
  }
  const finding = memoryFinding(defaults.memoryMiB, memory);
  if (finding !== undefined) return toCheck(subject, finding);
  return { subject, status: "pass", text: `${memory.availableMiB} MiB of ${memory.totalMiB} are free` };
}

async function kernelCheck(path: string): Promise<{
  readonly check: Check;
  readonly initramfs?: "generated";
}> {
  const subject = "Kernel";
  let facts: KernelFacts;
  try {
    facts = await inspectKernel(path);
  } catch (error) {
    return { check: await look(subject, "failure", () => Promise.reject(error)) };
  }
  const abilities = await abilitiesOf(facts);
  const name = `${path}: Linux ${facts.release ?? "of unknown release"}`;
  const reasons = new Set(abilities.flatMap(({ root, reasons: given }) => (root === "nfs" ? given : [])));
  const why = `${[...reasons].join("; ")}. See microvm kernel check ${path}`;
  const bad = { code: "kernel-unusable", remedy: errorKinds["kernel-unusable"].remedy } as const;
  const nfsRoot = nfsRootOf(abilities);
  switch (nfsRoot) {
    case "yes":
      return { check: { subject, status: "pass", text: `${name}, boots an NFS root by itself` } };
    case "initramfs": {
      const text = `${name}, boots an NFS root with an initramfs that is made from its modules`;
      return { check: { subject, status: "pass", text }, initramfs: "generated" };
    }
    case "no": {
      const text = `${name}, cannot boot an NFS root: ${why}`;
      return { check: { subject, status: "failure", text, ...bad } };
    }
    case "unknown": {
      const text = `${name}, nobody knows whether it boots an NFS root: ${why}`;
      return { check: { subject, status: "warning", text, ...bad } };
    }
    default:
      return nfsRoot satisfies never;
  }
}

/** The root as guests of QEMU meet it, and where those of Cloud Hypervisor can be run, as they do. */
async function nfsChecks(
  { server, port, mountPort = defaultMountPort(port), path }: NonNullable<DiagnosisRequest["nfs"]>,
  initramfs: "generated" | undefined,
  onTaps: boolean,
): Promise<readonly Check[]> {
  const subject = "NFS root";
  const guest: GuestOfExport = { words: [], arch: GUEST_PROCESSOR, initramfs };
  const placeFor = (address: string, link: GuestLink): ExportPlace => ({
    hostServer: seenFromHost(address, link),
    port,
    mountPort,
    path,
  });
  try {
    const address = await resolveServer(server, undefined);
    const place = placeFor(address, userLinkOf());
    const finding = await exportFinding(place, guest);
    const onUserNetwork =
      finding === undefined ? await goodExport(subject, place, guest) : toCheck(subject, finding);
    if (!onTaps) return [onUserNetwork];
    const link = tapLinkOf();
    const onTap = await tapExportFindings(placeFor(address, link), guest, link);
    return [onUserNetwork, ...onTap.map((found) => toCheck(`${subject}, on a tap`, found))];
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    return [await look(subject, "failure", () => Promise.reject(error))];
  }
}

/** In the words of the probe that found nothing wrong, which is not made again. */
async function goodExport(subject: string, place: ExportPlace, guest: GuestOfExport): Promise<Check> {
  const request = probeRequestOf(place, guest.words ?? [], guest.arch);
  const startedBy = guest.initramfs === "generated" ? "initramfs" : "kernel";
  const { text } = describe(await probeOnce({ ...request, startedBy }), request);
  return { subject, status: "pass", text };
}

/** The name decides the guest's address, which no check leans on. */
const NO_VM = { vmName: "doctor", ip: defaults.ip, guestAccess: defaults.guestAccess } as const;

function userLinkOf(): GuestLink {
  const link = linkOf({ ...NO_VM, backend: { type: "qemu" } });
  if (link === undefined) throw new Error("the user network always is");
  return link;
}

function tapLinkOf(): TapLink {
  const link = linkOf({ ...NO_VM, backend: { type: "cloud-hypervisor" } });
  if (link?.kind !== "tap") throw new Error("the default network is a tap's");
  return link;
}
