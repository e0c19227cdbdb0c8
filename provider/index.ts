/**
 * The dynamic provider of MicroVm: what Pulumi's state points at. Each function reads as the stages: inputs, spec,
 * plan, boot configuration, preflight, back end, observed state, outputs.
 *
 * The path `pulumi-microvm/provider` stands in the state of every resource ever made: it must never change.
 */

import { randomBytes } from "node:crypto";
import type {
  AnyBackend,
  AnyOutputs,
  ArrakisBackend,
  Backend,
  BackendOptions,
  OnServer,
  OnThisHost,
  VmReference,
} from "./backends/backend.js";
import { atBorder } from "./border.js";
import type { CheckResult } from "./check-result.js";
import { checkInputs } from "./check.js";
import { watchEngine, whileEngineLives } from "./engine.js";
import { confirm } from "./host/confirm.js";
import { printNotice } from "./notice.js";
import { hasDrifted, isElsewhere, outputsOf, referenceOf, refreshed, stateDirectoryOf } from "./observed.js";
import type { Values } from "./plan/fields.js";
import { plan } from "./plan/plan.js";
import { bootOf, type CheckedInputs } from "./spec/checked.js";
import { defaults } from "./spec/defaults.js";
import { type CheckedServerInputs, isOnServer, serverVmOf } from "./spec/server-inputs.js";

/**
 * Inputs to checked inputs, which the preview shows and create boots.
 *
 * @param olds Checked inputs of the last up; `{}` when there was none, or when a replacement is named.
 * @param news What the program and the SDK give.
 */
export const check = atBorder(async (olds: Values, news: Values): Promise<CheckResult> => {
  watchEngine();
  return checkInputs(olds, news, backendOf);
});

/** What differs, and whether that replaces the VM. */
export const diff = atBorder(async (id: string, olds: Values, news: Values) => {
  const reference = referenceOf(id, olds);
  const isHere = !(await isElsewhere(reference, printNotice));
  // The engine asks about this instance, so its state holds it.
  if (isHere) await confirmSaved(reference, olds);
  const observed = isHere ? news["observed"] : "unknown";
  const { action, changes } = plan(olds, { ...news, observed });
  return {
    changes: action !== "nothing" || hasDrifted(olds, { observed }),
    replaces: changes.filter((change) => change.policy === "replace").map((change) => change.field),
    deleteBeforeReplace: news["createFirst"] !== true,
  };
});

/** Boots the VM and returns when its guest has proved that it runs on the root that was planned. */
export const create = atBorder(async (inputs: Values): Promise<{ id: string; outs: Values }> => {
  const { vmName, owner, snapshotId } = inputs as unknown as CheckedInputs;
  const stateDirectory = stateDirectoryOf(inputs);
  const made = randomBytes(8).toString("hex");
  const outputs = await onBackend(inputs, (backend, vm, signal) =>
    backend.create({
      ...vm,
      vmName,
      instance: made,
      stateDirectory,
      owner,
      snapshotId,
      signal,
      notice: printNotice,
    }),
  );
  const instance = "instance" in outputs ? outputs.instance : made;
  return { id: `${vmName}/${instance}`, outs: outputsOf(inputs, outputs) };
});

/** What is there now. A VM that is gone leaves the state; another host's is an error, never "gone". */
export const read = atBorder(
  async (id: string, outputs: Values): Promise<{ id?: string; props?: Values }> => {
    const reference = referenceOf(id, outputs);
    await confirmSaved(reference, outputs);
    const vm = await (await backendOf(outputs)).observe(reference);
    if (vm.state === "gone") return {};
    return { id, props: refreshed({ vmName: reference.vmName, ...outputs }, vm) };
  },
);

/** Brings the VM to what the plan says without replacing it. */
export const update = atBorder(async (id: string, olds: Values, news: Values): Promise<{ outs: Values }> => {
  const reference = referenceOf(id, olds);
  await confirmSaved(reference, olds);
  const outputs = await onBackend(news, (backend, vm, signal) =>
    backend.update({ ...vm, reference, signal, notice: printNotice }),
  );
  // A server tells of the root only when the guest was asked.
  const { rootEvidence } = olds;
  const kept = isOnServer(news) && rootEvidence !== undefined ? { ...news, rootEvidence } : news;
  return { outs: outputsOf(kept, outputs) };
});

/** Powers the VM off and removes it. Deleting what is gone succeeds. */
const remove = atBorder(async (id: string, outputs: Values): Promise<void> => {
  const reference = referenceOf(id, outputs);
  const shutdownTimeoutSeconds = Number(outputs["shutdownTimeoutSeconds"] ?? 10);
  await whileEngineLives(async (signal) =>
    (await backendOf(outputs)).remove({ reference, shutdownTimeoutSeconds, signal, notice: printNotice }),
  );
});
export { remove as delete };

/** Notes that the engine's state holds the VM: no later create takes it for one that nobody knows of. */
async function confirmSaved(
  { stateDirectory, vmName, instance }: VmReference,
  values: Values,
): Promise<void> {
  if (!isOnServer(values)) {
    await confirm(stateDirectory, vmName, instance);
    return;
  }
  const { settle } = await import("./host/intent.js");
  await settle(stateDirectory, (values["backend"] as ArrakisBackend).url, vmName, instance);
}

/** Loaded when first needed: a preview of new VMs never pays for it. */
async function backendOf(values: Values): Promise<AnyBackend> {
  const backends = await import("./backends/index.js");
  return backends.backendOf((values["backend"] as BackendOptions | undefined) ?? defaults.backend);
}

/** Lets the back end that the inputs name work on what they say, while the engine lives. */
async function onBackend(
  inputs: Values,
  work: <Kind extends OnThisHost | OnServer>(
    backend: Backend<Kind>,
    vm: Kind["vm"],
    signal: AbortSignal,
  ) => Promise<Kind["outputs"]>,
): Promise<AnyOutputs> {
  return await whileEngineLives(async (signal): Promise<AnyOutputs> => {
    const backends = await import("./backends/index.js");
    if (isOnServer(inputs)) {
      const checked = inputs as unknown as CheckedServerInputs;
      return await work<OnServer>(backends.backendOf(checked.backend), serverVmOf(checked), signal);
    }
    const checked = inputs as unknown as CheckedInputs;
    const { backend, powerState, readiness, shutdownTimeoutSeconds } = checked;
    const settings = { backend, powerState, readiness, shutdownTimeoutSeconds };
    return await work<OnThisHost>(backends.backendOf(backend), { boot: bootOf(checked), settings }, signal);
  });
}
