/** From a request to a VM: the stages of check, with a name and host ports of the server's choice. */

import { randomBytes } from "node:crypto";
import type { CreateRequest, LocalBackend, Owner, VmSettings, Work } from "../backends/backend.js";
import { backendOf } from "../backends/index.js";
import type { BootConfiguration, PortForward } from "../boot/boot.js";
import { checkInputs } from "../check.js";
import { MicroVmError } from "../errors.js";
import type { Notice } from "../notice.js";
import { forgetProbes } from "../preflight/nfs/share.js";
import { bootOf, type CheckedInputs } from "../spec/checked.js";
import { defaults } from "../spec/defaults.js";
import { inputsOf } from "./inputs.js";
import { forwardsTo } from "./ports.js";
import { ORGANIZATION } from "./recover.js";
import { Refusal, statusCodeOf } from "./refusal.js";
import { savedBoot } from "./saved.js";
import type { ServerConfig } from "./server-config.js";
import type { StartVmRequest } from "./wire.js";

/** What the server makes its VMs from. */
export interface Workshop {
  readonly config: ServerConfig;
  readonly backend: LocalBackend;
  /** Absolute path. */
  readonly stateDirectory: string;
  /** How long a guest may take to power itself off before it is forced, in seconds. */
  readonly shutdownTimeoutSeconds: number;
}

/** What a VM would be. */
export interface Planned {
  readonly boot: BootConfiguration;
  readonly settings: VmSettings;
  /** Id on this host of the snapshot that it is restored from. */
  readonly snapshotId?: string;
}

/** How often other host ports are tried: a VM that is off may have one at which nobody listens. */
const MOST_TRIES = 5;

/** A name for a VM whose request gives none. */
export function newName(): string {
  return `vm-${randomBytes(4).toString("hex")}`;
}

/** Who a VM of the server's belongs to. */
export function ownerOf(vmName: string, config: ServerConfig): Owner {
  return { organization: ORGANIZATION, urn: `restserver:${vmName}`, program: config.path };
}

/**
 * What a request asks for, checked as far as it can be without making anything.
 *
 * @param forwards Host ports of the guest's.
 * @throws Refusal with every reason against it.
 */
export async function planVm(
  workshop: Workshop,
  vmName: string,
  request: StartVmRequest,
  forwards: readonly PortForward[],
  notice: Notice,
): Promise<Planned> {
  const { config, backend, stateDirectory, shutdownTimeoutSeconds } = workshop;
  if (request.snapshotId !== undefined && request.snapshotId !== "") {
    const { id, boot } = await savedBoot(stateDirectory, vmName, request);
    return { boot: { ...boot, portForwards: forwards }, settings: settingsOf(workshop), snapshotId: id };
  }
  // Each request is checked against the server as it is now.
  forgetProbes();
  const news = {
    ...inputsOf(request, { config, backend, vmName, portForwards: forwards }),
    shutdownTimeoutSeconds,
    owner: ownerOf(vmName, config),
  };
  const { inputs, failures } = await checkInputs({}, news, observesNothing, { stateDirectory, notice });
  const [first] = failures;
  if (first !== undefined) {
    const statuses = failures.map(({ code = "invalid-input" }) => statusCodeOf(code));
    throw new Refusal(Math.max(...statuses), failures.map(({ reason }) => reason).join("\n"), first.code);
  }
  const checked = inputs as unknown as CheckedInputs;
  const { powerState, readiness } = checked;
  return { boot: bootOf(checked), settings: { backend, powerState, readiness, shutdownTimeoutSeconds } };
}

/**
 * Makes the VM and waits for the proof of its guest; nothing is left when it throws.
 *
 * @throws Refusal or MicroVmError
 */
export async function makeVm(
  workshop: Workshop,
  vmName: string,
  request: StartVmRequest,
  work: Work,
): Promise<CreateRequest> {
  const { config, backend, stateDirectory } = workshop;
  for (let tries = 1; ; tries += 1) {
    const forwards = await forwardsTo(forwardedPorts(workshop));
    const planned = await planVm(workshop, vmName, request, forwards, work.notice);
    const instance = randomBytes(8).toString("hex");
    const owner = ownerOf(vmName, config);
    const asked = { vmName, instance, stateDirectory, owner, ...planned, ...work };
    try {
      await backendOf(backend).create(asked);
      return asked;
    } catch (error) {
      const isOfPort = error instanceof MicroVmError && error.code === "port-taken";
      if (!isOfPort || tries === MOST_TRIES) throw error;
    }
  }
}

/** Those of config.yaml; on QEMU's user network, where the host does not reach the guest by itself, its command server as well. */
function forwardedPorts({ config, backend }: Workshop): number[] {
  const ports = config.guestPorts.map(({ guestPort }) => guestPort);
  const own = backend.type === "qemu" && !ports.includes(config.commandServerPort);
  return own ? [...ports, config.commandServerPort] : ports;
}

function settingsOf({ backend, shutdownTimeoutSeconds }: Workshop): VmSettings {
  const { powerState, readiness } = defaults;
  return { backend, powerState, readiness, shutdownTimeoutSeconds };
}

/** A VM that is new is not observed. */
function observesNothing(): never {
  throw new Error("there is nothing to observe yet");
}
