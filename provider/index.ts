/**
 * The dynamic provider of MicroVm: what Pulumi's state points at. Each function reads as the stages: inputs, spec,
 * plan, boot configuration, preflight, back end, observed state, outputs.
 *
 * The path `pulumi-microvm/provider` stands in the state of every resource ever made: it must never change.
 */

import { randomBytes } from "node:crypto";
import type { Backend, VmSettings } from "./backends/backend.js";
import { bootConfiguration } from "./boot/boot.js";
import { guestLink, isThisHost } from "./boot/network.js";
import { watchEngine, whileEngineLives } from "./engine.js";
import { MicroVmError } from "./errors.js";
import { confirm } from "./host/confirm.js";
import { printNotice } from "./notice.js";
import { observedOf, outputsOf, referenceOf, stateDirectoryOf } from "./observed.js";
import type { Values } from "./plan/fields.js";
import { createFirstFailures, plan } from "./plan/plan.js";
import { gatherFacts } from "./preflight/facts.js";
import { specOf, type SpecResult } from "./spec/check.js";
import { bootOf, factsOf, type CheckedInputs } from "./spec/checked.js";
import { contextInputs, contextOf, inputsOf, keptDigests, programInputs } from "./spec/context.js";
import { UNKNOWN, type Failure } from "./spec/validate.js";

/** A failure as the engine takes it. */
interface CheckFailure {
  readonly property: string;
  readonly reason: string;
}

/**
 * Inputs to checked inputs, which the preview shows and create boots.
 *
 * @param olds Checked inputs of the last up; `{}` when there was none, or when a replacement is named.
 * @param news What the program and the SDK give.
 */
export async function check(
  olds: Values,
  news: Values,
): Promise<{ inputs: Values; failures: CheckFailure[] }> {
  watchEngine();
  const context = contextOf(olds, news);
  const result = await specOf(programInputs(news), context);
  const stateDirectory = stateDirectoryOf(olds);
  const gathered = await gatherFacts(result, { olds, kept: keptDigests(news), stateDirectory });
  const failures = [...result.failures, ...gathered.failures];
  const notices = [...gathered.notices];

  const inputs: Record<string, unknown> = { ...result.values, ...gathered.facts, ...contextInputs(news) };
  for (const name of result.unknown) inputs[name] = UNKNOWN;
  const exists = Object.keys(olds).length > 0;
  inputs["stateDirectory"] = stateDirectory;
  inputs["observed"] = exists
    ? await observedOf(olds, async () => backendOf(olds), printNotice)
    : (inputs["powerState"] ?? UNKNOWN);
  if (failures.length === 0) {
    const boot = previewedBoot(result, inputs as unknown as CheckedInputs);
    Object.assign(inputs, boot.derived);
    failures.push(...boot.failures);
  }
  if (!exists || olds["nfsServer"] !== inputs["nfsServer"]) notices.push(...addressNotices(inputs));

  if (failures.length === 0 && exists) {
    const planned = plan(olds, inputs);
    failures.push(...planned.failures);
    if (planned.action === "replace" && context.createFirst) {
      failures.push(...createFirstFailures(olds, inputs));
    }
    notices.push(...planned.notices);
  }
  notices.forEach((notice) => printNotice(notice));
  return { inputs, failures: failures.map((failure) => checkFailure(failure, context.secretInputs)) };
}

/** What differs, and whether that replaces the VM. */
export async function diff(id: string, olds: Values, news: Values) {
  const { stateDirectory, vmName, instance } = referenceOf(id, olds);
  // The engine asks about this instance, so its state holds it.
  await confirm(stateDirectory, vmName, instance);
  const { action, changes } = plan(olds, news);
  return {
    changes: action !== "nothing",
    replaces: changes.filter((change) => change.policy === "replace").map((change) => change.field),
    deleteBeforeReplace: news["createFirst"] !== true,
  };
}

/** Boots the VM and returns when its guest has proved that it runs on the root that was planned. */
export async function create(inputs: Values): Promise<{ id: string; outs: Values }> {
  const checked = inputs as unknown as CheckedInputs;
  const boot = bootOf(checked);
  const instance = randomBytes(8).toString("hex");
  const outputs = await whileEngineLives(async (signal) =>
    (await backendOf(inputs)).create({
      vmName: checked.vmName,
      instance,
      stateDirectory: checked.stateDirectory,
      owner: checked.owner,
      boot,
      settings: settingsOf(checked),
      signal,
      notice: printNotice,
    }),
  );
  return { id: `${checked.vmName}/${instance}`, outs: outputsOf(inputs, outputs) };
}

/** What is there now. A VM that is gone leaves the state; another host's is an error, never "gone". */
export async function read(
  id: string,
  outputs: Values,
): Promise<{ id?: string; props?: Values; inputs?: Values }> {
  const reference = referenceOf(id, outputs);
  await confirm(reference.stateDirectory, reference.vmName, reference.instance);
  const vm = await (await backendOf(outputs)).observe(reference);
  if (vm.state === "gone") return {};
  const props = outputsOf({ vmName: reference.vmName, ...outputs }, vm);
  return { id, props, inputs: inputsOf(props) };
}

/** Brings the VM to what the plan says without replacing it. */
export async function update(id: string, olds: Values, news: Values): Promise<{ outs: Values }> {
  const checked = news as unknown as CheckedInputs;
  const reference = referenceOf(id, olds);
  await confirm(reference.stateDirectory, reference.vmName, reference.instance);
  const outputs = await whileEngineLives(async (signal) =>
    (await backendOf(news)).update({
      reference,
      boot: bootOf(checked),
      settings: settingsOf(checked),
      signal,
      notice: printNotice,
    }),
  );
  return { outs: outputsOf(news, outputs) };
}

/** Powers the VM off and removes it. Deleting what is gone succeeds. */
async function remove(id: string, outputs: Values): Promise<void> {
  const reference = referenceOf(id, outputs);
  const shutdownTimeoutSeconds = Number(outputs["shutdownTimeoutSeconds"] ?? 10);
  await whileEngineLives(async (signal) =>
    (await backendOf(outputs)).remove({ reference, shutdownTimeoutSeconds, signal, notice: printNotice }),
  );
}
export { remove as delete };

/** Loaded when first needed: a preview of new VMs never pays for it. */
async function backendOf(values: Values): Promise<Backend> {
  const backends = await import("./backends/index.js");
  const backend = values["backend"] as VmSettings["backend"] | undefined;
  return backends.backendOf(backend?.type ?? "qemu");
}

function settingsOf(checked: CheckedInputs): VmSettings {
  const { backend, powerState, readiness, shutdownTimeoutSeconds } = checked;
  return { backend, powerState, readiness, shutdownTimeoutSeconds };
}

/** The derived part of the boot configuration; unknown where an input is, so that a preview says so. */
function previewedBoot(
  result: SpecResult,
  inputs: CheckedInputs,
): { derived: Values; failures: readonly Failure[] } {
  if (result.spec === undefined) return { derived: { cmdline: UNKNOWN, disks: UNKNOWN }, failures: [] };
  try {
    const { cmdline, disks } = bootConfiguration(result.spec, factsOf(inputs));
    return { derived: { cmdline, disks }, failures: [] };
  } catch (error) {
    if (!(error instanceof MicroVmError) || error.input === undefined) throw error;
    const text = error.message.slice(error.input.length + 2);
    return { derived: {}, failures: [{ input: error.input, text }] };
  }
}

/** A loopback address is not what the guest mounts from: the preview says so. */
function addressNotices(inputs: Values): string[] {
  const address = inputs["nfsServerAddress"];
  if (typeof address !== "string" || !isThisHost(address)) return [];
  const { gatewayAddress } = guestLink({ ip: "static" });
  return [
    `${String(inputs["vmName"])}: nfsServer ${String(inputs["nfsServer"])} is this host; the guest reaches it as ${gatewayAddress}`,
  ];
}

function checkFailure({ input, text }: Failure, secret: ReadonlySet<string>): CheckFailure {
  const property = input.split(".")[0] ?? input;
  // The engine prints the property's value beside the reason, a secret's in clear.
  return { property: secret.has(property) ? "" : property, reason: `${input}: ${text}` };
}
