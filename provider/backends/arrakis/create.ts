/** The life of a VM on a server up to the moment at which its guest has shown its root. */

import { setTimeout as delay } from "node:timers/promises";

import { MicroVmError, messageOf } from "../../errors.js";
import { announce, noteMade, settle } from "../../host/intent.js";
import { openStateDirectory } from "../../host/state-directory.js";
import { noticeText } from "../../notices.js";
import type { Vm } from "../../server/wire.js";
import type { CreateRequest, ServerVm, ServerVmOutputs } from "../backend.js";
import { stopIfInterrupted } from "../local/interrupt.js";
import { type ArrakisApi, statusOf } from "./api.js";
import { unsupportedFailures } from "./features.js";
import { evidenceNow, outputsOf } from "./outputs.js";
import { setPower } from "./power.js";
import { proveRoot } from "./prove-root.js";
import { claimOf } from "./root-claim.js";

/** Where a VM is asked for. */
export interface Asked {
  readonly api: ArrakisApi;
  /** As `backend.url` has it. */
  readonly url: string;
}

type Request = CreateRequest<ServerVm>;

/** How long a server may take to say what it can do, in seconds. */
const HEALTH_SECONDS = 10;
/** Arrakis waits for a minute for the guest's command server, then answers all the same. */
const SERVER_WAIT_SECONDS = 90;
/** How long a request that was broken off may take to show in the list, in seconds. */
const APPEARS_SECONDS = 3;
const POLL_MILLISECONDS = 200;
/** How long the removal of a VM that is undone may take, in seconds. */
const UNDO_SECONDS = 60;

/**
 * Makes the VM and returns once its guest has shown its root. What may be someone else's is never removed.
 *
 * @throws MicroVmError `name-taken`: the server has a VM of that name; `not-supported`, `invalid-input`: the server cannot do what is
 * asked for; `boot-failed`, `boot-timeout`: as {@link evidenceOf}; `server-failed`, or what a server of ours names; `interrupted`.
 */
export async function createVm(asked: Asked, request: Request): Promise<ServerVmOutputs> {
  const { stateDirectory, vmName, instance, owner, signal } = request;
  const { url } = asked;
  stopIfInterrupted(signal);
  await openStateDirectory(stateDirectory);
  const intent = { url, vmName, instance, owner };
  const lost = await announce(stateDirectory, intent, signal);
  const creation = new Creation(asked, request);
  try {
    const isLost = lost !== undefined && JSON.stringify(lost.owner) === JSON.stringify(owner);
    const outputs = await creation.run(isLost);
    const { instance: named = instance } = outputs;
    await noteMade(stateDirectory, { ...intent, instance: named });
    return outputs;
  } catch (error) {
    const why = await creation.undone(error);
    // The note stays where a VM may: it tells the next create whose that is.
    if (why.isUndone) await settle(stateDirectory, url, vmName, instance);
    throw why.error;
  }
}

/** One create, and what of it has to be undone. */
class Creation {
  /** Whether the server may have made a VM for us. */
  #isSent = false;
  /** Why no answer came to the request, though the VM is there. */
  #lostAnswer: unknown;
  /** Whether a VM of that name can only be ours. */
  #isOurs: boolean;

  constructor(
    readonly asked: Asked,
    readonly request: Request,
  ) {
    this.#isOurs = request.isNameGenerated;
  }

  /** @param wasLost Whether an earlier create of this resource was killed before the engine knew of its VM. */
  async run(wasLost: boolean): Promise<ServerVmOutputs> {
    const { settings, vmName, signal, notice } = this.request;
    const { api } = this.asked;
    const { powerState, readiness } = settings;
    await this.#assertSupported();
    await this.#takeName(wasLost);
    stopIfInterrupted(signal);
    const deadline = performance.now() + readiness.timeoutSeconds * 1000;
    notice(noticeText("asks-server", { vm: vmName, url: this.asked.url }));
    const vm = await this.#start();
    const outputs = outputsOf(vm);
    const rootEvidence = await evidenceOf(api, this.request, vm, deadline);
    // Whether a request that broke off was followed to its end, only the guest can tell.
    if (rootEvidence === "unverified" && this.#lostAnswer !== undefined) throw this.#lostAnswer;
    if (powerState === "running") return { ...outputs, rootEvidence };
    // It has shown its root; what it is to be from now on follows.
    await setPower(api, { vmName, from: "running", settings, boot: () => Promise.resolve() });
    return { ...outputs, state: powerState, rootEvidence: evidenceNow(powerState, rootEvidence) };
  }

  /** @returns The error for the person, and whether nothing of this create is left on the server. */
  async undone(error: unknown): Promise<{ error: unknown; isUndone: boolean }> {
    if (!this.#isSent) return { error, isUndone: true };
    const { vmName } = this.request;
    const { api, url } = this.asked;
    try {
      if (this.#isOurs) {
        if (isAnswerOfOurs(error)) await removeIfThere(api, vmName);
        else await removeWhenThere(api, vmName);
        return { error, isUndone: true };
      }
      if ((await api.find(vmName)) === undefined) return { error, isUndone: true };
      const text = `the VM ${vmName} is left at ${url}, since it may be someone else's: remove it there if it is not`;
      return { error: withMore(error, text), isUndone: true };
    } catch (failure) {
      const text = `the VM ${vmName} may be left at ${url}: ${messageOf(failure)}`;
      return { error: withMore(error, text), isUndone: false };
    }
  }

  /** Asked again, since a preview may have left it out: an Arrakis ignores what it does not know. */
  async #assertSupported(): Promise<void> {
    const health = await this.asked.api.health(HEALTH_SECONDS);
    const [failure] = unsupportedFailures(health, this.request.start);
    if (failure === undefined) return;
    const { code = "invalid-input", text, input } = failure;
    throw new MicroVmError(code, text, { input });
  }

  /** Arrakis would boot a VM of that name, and ignore the rest of the request. */
  async #takeName(wasLost: boolean): Promise<void> {
    const { vmName, isNameGenerated, notice } = this.request;
    const { api, url } = this.asked;
    if ((await api.find(vmName)) === undefined) return;
    if (!wasLost || !isNameGenerated) throw nameTaken(vmName, url, wasLost);
    await api.destroy(vmName, UNDO_SECONDS);
    notice(noticeText("reclaimed-on-server", { vm: vmName, url }));
  }

  /** Sends the request; when no answer comes, the list tells whether the VM is there. */
  async #start(): Promise<Vm> {
    const { start, settings, vmName, signal } = this.request;
    const { api, url } = this.asked;
    const seconds = settings.readiness.timeoutSeconds + SERVER_WAIT_SECONDS;
    this.#isSent = true;
    try {
      const vm = await api.start(start, seconds, signal);
      if (vm.instance !== undefined) this.#isOurs = true;
      return vm;
    } catch (error) {
      stopIfInterrupted(signal);
      const status = statusOf(error);
      // Refused before anything was made: a VM of that name is another's.
      if (status === 409) this.#isSent = false;
      if (status === 409 && error instanceof MicroVmError && error.code === "name-taken") {
        throw nameTaken(vmName, url, false);
      }
      if (status !== undefined) throw error;
      const vm = await appeared(api, vmName);
      this.#lostAnswer = error;
      if (vm !== undefined) return vm;
      this.#isSent = false;
      throw error;
    }
  }
}

/**
 * What is known of the guest's root.
 *
 * @param deadline Until when the guest is asked, on the clock of `performance.now()`.
 * @throws MicroVmError `boot-failed` when it is another one than was asked for, `boot-timeout` when the guest cannot be asked and
 * `readiness.required` is set.
 */
export async function evidenceOf(
  api: ArrakisApi,
  request: Pick<Request, "start" | "settings" | "signal" | "notice"> & { readonly vmName: string },
  vm: Vm,
  deadline: number,
): Promise<"proved" | "restored" | "unverified"> {
  const { start, settings, vmName, signal, notice } = request;
  // A server of ours has followed the console to that, and a guest without a command server could say no more.
  if (vm.rootEvidence === "proved" || vm.rootEvidence === "restored") return vm.rootEvidence;
  const claim = claimOf(start, vm.cmdline);
  const evidence = await proveRoot(api, { vmName, claim, deadline, signal });
  switch (evidence.kind) {
    case "proved":
      return "proved";
    case "wrong":
      throw new MicroVmError(
        "boot-failed",
        `${vmName}: ${evidence.difference}. A server that does not know ${start.useNfsRoot === true ? "NFS roots" : "useNfsRoot: false"} ignores what it is asked for`,
        { input: "useNfsRoot" },
      );
    case "silent": {
      const { reason } = evidence;
      if (settings.readiness.required === true) {
        const text = `the guest of ${vmName} could not be asked what its root is: ${reason}`;
        throw new MicroVmError("boot-timeout", text, { input: "readiness.required" });
      }
      notice(noticeText("root-unverified", { vm: vmName, reason }));
      return "unverified";
    }
    default:
      return evidence satisfies never;
  }
}

/** A VM that was asked for in a request that broke off may come yet. */
async function appeared(api: ArrakisApi, vmName: string): Promise<Vm | undefined> {
  const deadline = performance.now() + APPEARS_SECONDS * 1000;
  for (;;) {
    const vm = await api.find(vmName);
    if (vm !== undefined || performance.now() >= deadline) return vm;
    await delay(POLL_MILLISECONDS);
  }
}

/** A server of ours answers when all is undone; a proxy's answer, or that of an Arrakis, may come before the VM. */
function isAnswerOfOurs(error: unknown): boolean {
  return statusOf(error) !== undefined && error instanceof MicroVmError && error.code !== "server-failed";
}

async function removeIfThere(api: ArrakisApi, vmName: string): Promise<void> {
  if ((await api.find(vmName)) !== undefined) await removeVm(api, vmName, UNDO_SECONDS);
}

async function removeWhenThere(api: ArrakisApi, vmName: string): Promise<void> {
  if ((await appeared(api, vmName)) !== undefined) await removeVm(api, vmName, UNDO_SECONDS);
}

/** Removes a VM; one that is no longer in the list is removed, whatever was answered. */
export async function removeVm(api: ArrakisApi, vmName: string, timeoutSeconds: number): Promise<void> {
  try {
    await api.destroy(vmName, timeoutSeconds);
  } catch (error) {
    if ((await api.find(vmName)) !== undefined) throw error;
  }
}

function nameTaken(vmName: string, url: string, wasLost: boolean): MicroVmError {
  const whose = wasLost
    ? "perhaps from an earlier create of this resource that was killed; remove it there if it is nobody's"
    : "and it is not this resource's; choose another vmName, or remove that VM there";
  return new MicroVmError("name-taken", `the server at ${url} has a VM ${vmName} already, ${whose}`, {
    input: "vmName",
  });
}

function withMore(error: unknown, text: string): unknown {
  if (!(error instanceof MicroVmError)) return error;
  const { code, input, cause } = error;
  return new MicroVmError(code, `${error.text}; ${text}`, {
    cause,
    ...(input === undefined ? {} : { input }),
  });
}
