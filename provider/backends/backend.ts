/** What a back end is: one object that turns a boot configuration into a running VM, and tells what is there. */

import type { BootConfiguration } from "../boot/boot.js";
import type { SnapshotRecord } from "../host/snapshots.js";
import type { Notice } from "../notice.js";
import type { StartVmRequest } from "../server/wire.js";

/** The state that a person asks for with `powerState`. */
export type PowerState = "running" | "paused" | "stopped";

/**
 * What the back end finds. `stopped`: the record and disks are there, no VMM runs. `gone`: nothing of this
 * instance is there. `damaged`: it cannot be started again as it is (a disk or a boot file is missing).
 */
export type ObservedState = PowerState | "gone" | "damaged";

/** Who a VM belongs to: written into its record, never compared for a replacement. */
export interface Owner {
  readonly organization: string;
  readonly urn: string;
  /** Real path of the Pulumi program's folder. */
  readonly program: string;
}

/** Names one VM of one create. The Pulumi id is `<vmName>/<instance>`. */
export interface VmReference {
  readonly vmName: string;
  /** 16 random hex digits, new with every create. */
  readonly instance: string;
  /** Absolute path of the state directory that holds the VM. */
  readonly stateDirectory: string;
  /** Content of the state directory's `host-id` file when the VM was made; absent when only its id is known. */
  readonly hostId?: string;
}

/** When a guest counts as ready. */
export interface Readiness {
  /** How long evidence may take, in seconds. */
  readonly timeoutSeconds: number;
  /** Regular expression that a console line must match, instead of any output of user space. */
  readonly console?: string;
  /** Whether a guest on a server that cannot be asked what its root is fails the create; on this host, each must show it. */
  readonly required?: boolean;
}

/** How the `qemu` back end runs its VMM. */
export interface QemuBackend {
  readonly type: "qemu";
  /** QEMU machine type. */
  readonly machine: "q35" | "microvm";
  /** `auto`: KVM where it can run a guest, else TCG. */
  readonly accelerator: "auto" | "kvm" | "tcg";
  /** Program to run; by default `qemu-system-x86_64` (or `-aarch64`) on PATH. */
  readonly binary?: string;
}

/** How the `cloud-hypervisor` back end runs its VMM. */
export interface CloudHypervisorBackend {
  readonly type: "cloud-hypervisor";
  /** Program to run; by default `CLOUD_HYPERVISOR`, else `cloud-hypervisor` on PATH. */
  readonly binary?: string;
  /** API socket of a VMM that someone else started and keeps running: then its process and network are theirs. */
  readonly apiSocket?: string;
}

/** How the `arrakis` back end reaches the server that runs the VM. */
export interface ArrakisBackend {
  readonly type: "arrakis";
  /** `http://` or `https://` with host and port, or `unix://` and the absolute path of a socket. */
  readonly url: string;
  /** Bearer token (RFC 6750): a secret. */
  readonly token?: string;
  /** Absolute path of a PEM file with the certificates that the server's may be signed by, instead of Node's own. */
  readonly caFile?: string;
}

/** Back ends that run the VM on this host, with a record in the state directory. */
export type LocalBackend = QemuBackend | CloudHypervisorBackend;

/** The `backend` input. */
export type BackendOptions = LocalBackend | ArrakisBackend;

/** How a VM is to run, whatever it boots. */
export interface RunSettings {
  readonly powerState: PowerState;
  readonly readiness: Readiness;
  /** How long an orderly power-off may take before it is forced, in seconds. */
  readonly shutdownTimeoutSeconds: number;
}

/** What the spec says of a VM on this host beside its boot configuration. */
export interface VmSettings extends RunSettings {
  readonly backend: LocalBackend;
}

/** A VM that this host boots. */
export interface LocalVm {
  readonly boot: BootConfiguration;
  readonly settings: VmSettings;
}

/** A VM that a server boots. */
export interface ServerVm {
  /** What the server is told. */
  readonly start: StartVmRequest;
  readonly settings: RunSettings;
  /** Whether the name was made up by us: a VM of that name is then nobody else's. */
  readonly isNameGenerated: boolean;
}

/** What a back end is told while it works. */
export interface Work {
  /** Aborted when the engine has died: undo what is in hand. */
  readonly signal: AbortSignal;
  readonly notice: Notice;
}

/** What every create needs. */
interface Creation extends Work {
  readonly vmName: string;
  readonly instance: string;
  readonly stateDirectory: string;
  readonly owner: Owner;
  /** Snapshot in the same place that the guest is restored from; absent for a boot. */
  readonly snapshotId?: string;
}

/** One VM to be made. */
export type CreateRequest<Vm = LocalVm> = Creation & Vm;

/** What every update needs. */
interface Change extends Work {
  readonly reference: VmReference;
}

/** One VM to be brought to what the request says; what it boots differs at most in what can change in place. */
export type UpdateRequest<Vm = LocalVm> = Change & Vm;

/** One VM to be removed. */
export interface RemoveRequest extends Work {
  readonly reference: VmReference;
  readonly shutdownTimeoutSeconds: number;
}

/** One snapshot to be taken. */
export interface SnapshotRequest extends Work {
  /** `<vmName>-<16 hex digits>`, new with every snapshot. */
  readonly id: string;
  readonly reference: VmReference;
  readonly owner: Owner;
}

/** A size that the VMM was asked for while its guest runs: its "yes" is a request, which the guest may take up late or never. */
export interface RequestedSize {
  readonly vcpus?: number;
  readonly memoryMiB?: number;
}

/** What is known of a VM when create, read or update is done: the resource's outputs. */
export interface VmOutputs {
  readonly state: ObservedState;
  /**
   * `proved`: the console showed that the guest runs on the named root. `restored`: it did so before the snapshot that the guest was
   * restored from, and has shown nothing since. `stale`: it runs, and its NFS server does not know its root any more. `none`: it does not
   * run, or has not shown it yet.
   */
  readonly rootEvidence: "proved" | "restored" | "stale" | "none";
  /** IPv4 address of the guest on its link. */
  readonly guestIp: string;
  readonly hostId: string;
  readonly stateDirectory: string;
  /** Absolute path of the guest's serial console log on this host. */
  readonly consoleLog: string;
  /** What runs the guest's instructions; absent while no VMM runs. */
  readonly accelerator?: "kvm" | "tcg";
  /** Process id of the VMM; absent while none runs. */
  readonly pid?: number;
  /** What was asked of the guest since it started; whether it uses that, only the guest itself could show. */
  readonly requested?: RequestedSize;
}

/** What is known of a VM on a server. What was not asked this time is absent. */
export interface ServerVmOutputs {
  readonly state: ObservedState;
  /**
   * As {@link VmOutputs}. `proved`: the guest answered what its root is, or the server has seen it. `unverified`: the guest runs, and
   * could not be asked.
   */
  readonly rootEvidence?: VmOutputs["rootEvidence"] | "unverified";
  /** The instance as the server names it, where it does: it stands in the id then. */
  readonly instance?: string;
  /** IPv4 address of the guest on its link. */
  readonly guestIp?: string;
  /** The kernel command line that was booted, where the server tells it. */
  readonly cmdline?: string;
}

/** A snapshot that a server keeps. */
export interface ServerSnapshot {
  /** ISO 8601. */
  readonly takenAt: string;
}

/** Back ends of one kind are told and tell the same: those that run VMs on this host … */
export interface OnThisHost {
  readonly vm: LocalVm;
  readonly outputs: VmOutputs;
  readonly snapshot: SnapshotRecord;
}

/** … and those that ask a server to. */
export interface OnServer {
  readonly vm: ServerVm;
  readonly outputs: ServerVmOutputs;
  readonly snapshot: ServerSnapshot;
}

/** What turns a boot configuration, or a request to a server, into a running VM. */
export interface Backend<Kind extends OnThisHost | OnServer = OnThisHost> {
  /** What is there now; never what we remember. An unreadable or foreign state directory is an error. */
  observe(reference: VmReference): Promise<Kind["outputs"]>;
  /** Makes the VM and returns once the guest has proved its root; leaves nothing behind when it throws. */
  create(request: CreateRequest<Kind["vm"]>): Promise<Kind["outputs"]>;
  /** Brings an existing VM to the request; also starts one that died. */
  update(request: UpdateRequest<Kind["vm"]>): Promise<Kind["outputs"]>;
  /** Powers off in an orderly way, then removes everything. Removing what is gone succeeds. */
  remove(request: RemoveRequest): Promise<void>;
  /** Takes a snapshot of a running VM, which runs on as it did. Leaves nothing behind when it throws; `not-supported` where there are none. */
  takeSnapshot(request: SnapshotRequest): Promise<Kind["snapshot"]>;
}

/** What a back end of any kind tells. */
export type AnyOutputs = (OnThisHost | OnServer)["outputs"];

/** A back end of any kind: what is common to them. */
export type AnyBackend = Pick<Backend | Backend<OnServer>, "observe" | "remove" | "takeSnapshot">;
