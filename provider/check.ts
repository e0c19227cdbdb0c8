/** Inputs to checked inputs: every stage before the boot, in order. What this returns is previewed, stored and booted. */

import type { AnyBackend } from "./backends/backend.js";
import { bootConfiguration, type BootConfiguration } from "./boot/boot.js";
import { isThisHost, linkOf, seenFromGuest } from "./boot/network.js";
import { bootsOf, type CheckResult, isCertain, resourceName, resultOf } from "./check-result.js";
import { claimOf } from "./console/evidence.js";
import { MicroVmError } from "./errors.js";
import { type Notice, printOnce } from "./notice.js";
import { noticeText } from "./notices.js";
import { observedInput, stateDirectoryOf } from "./observed.js";
import type { Values } from "./plan/fields.js";
import { createFirstFailures, plan } from "./plan/plan.js";
import { type FactValues, gatherFacts } from "./preflight/facts.js";
import { judge } from "./preflight/finding.js";
import { leftOut, preflight } from "./preflight/preflight.js";
import { specOf, type SpecResult } from "./spec/check.js";
import { factsOf, type CheckedInputs } from "./spec/checked.js";
import { contextInputs, contextOf, keptDigests, programInputs, withoutSecrets } from "./spec/context.js";
import type { InputName } from "./spec/schema.js";
import { isOnServer } from "./spec/server-inputs.js";
import type { Spec } from "./spec/spec.js";
import { holdsUnknown, UNKNOWN, type Failure } from "./spec/validate.js";

export type { CheckFailure, CheckResult } from "./check-result.js";

/** Where a check is made, when that is not a provider process of the engine. */
export interface CheckPlace {
  /** Absolute path of the state directory of new VMs; this user's own by default. */
  readonly stateDirectory?: string;
  readonly notice?: Notice;
}

/**
 * Checks the inputs of one resource.
 *
 * @param olds Checked inputs of the last up; `{}` when there was none, or when a replacement is named.
 * @param news What the program and the SDK give.
 * @param backendOf The back end of checked inputs.
 */
export async function checkInputs(
  olds: Values,
  news: Values,
  backendOf: (values: Values) => Promise<AnyBackend>,
  { stateDirectory: ofNew, notice = printOnce }: CheckPlace = {},
): Promise<CheckResult> {
  const context = contextOf(olds, news);
  const { secretInputs } = context;
  const result = await specOf(programInputs(news), context);
  if (isOnServer(news)) {
    const { checkServerInputs } = await import("./check-server.js");
    return await checkServerInputs({ olds, news, context, result, backendOf, notice });
  }
  const exists = Object.keys(olds).length > 0;
  const stateDirectory = exists || ofNew === undefined ? stateDirectoryOf(olds) : ofNew;
  const vm = result.unknown.has("vmName") ? resourceName(context.owner.urn) : String(result.values.vmName);
  const kept = keptDigests(olds, news);
  const gathered = await gatherFacts(result, { olds, kept, stateDirectory, vm });
  const failures: Failure[] = [...result.failures, ...gathered.failures];
  const notices: string[] = [...gathered.notices];

  const inputs: Record<string, unknown> = {
    ...result.values,
    ...Object.fromEntries([...result.unknown].map((name) => [name, UNKNOWN])),
    ...gathered.facts,
    ...unknownFacts(result, gathered.facts, olds),
    ...contextInputs(olds, news),
    stateDirectory,
  };
  inputs["observed"] = exists
    ? await observedInput(olds, inputs, () => backendOf(olds), notice)
    : inputs["powerState"];
  const boot = bootOf(failures, result.spec, inputs as unknown as CheckedInputs);
  inputs["cmdline"] = boot?.cmdline ?? UNKNOWN;
  inputs["disks"] = boot?.disks ?? UNKNOWN;

  const planned = exists ? plan(olds, inputs) : undefined;
  const boots = bootsOf(planned, inputs);
  for (const failure of gathered.sourceFailures) {
    // A VM that stays as it is does not boot from its sources again.
    if (planned !== undefined && isCertain(planned, inputs)) failures.push(failure);
    else notices.push(noticeText("source-kept", { vm, input: failure.input, finding: failure.text }));
  }
  if (planned !== undefined && failures.length === 0) {
    failures.push(...planned.failures);
    if (planned.action === "replace" && context.createFirst) {
      failures.push(...createFirstFailures(olds, inputs));
    }
    notices.push(...planned.notices);
  }
  if (
    failures.length === 0 &&
    boot !== undefined &&
    (planned === undefined || planned.action === "replace")
  ) {
    failures.push(...(await snapshotFailures(vm, inputs as unknown as CheckedInputs, boot, notices)));
  }
  const { values, unknown } = result;
  // Unknown, it can still become anything: nothing fails by it.
  const mode = unknown.has("preflight") ? "warn" : (values.preflight ?? "error");
  if (failures.length === 0 && mode !== "off") {
    const { facts, processor } = gathered;
    const found = await preflight({ values, unknown, facts, processor, mayBoot: boots !== "no" });
    const judged = judge([...gathered.findings, ...found], mode, boots);
    failures.push(...judged.failures);
    for (const { input, text } of judged.warnings) {
      notices.push(noticeText("preflight-warning", { vm, input, finding: text }));
    }
    const unchecked = leftOut(values, unknown);
    if (unchecked.length > 0)
      notices.push(noticeText("not-checked-yet", { vm, checks: unchecked.join("; ") }));
  }
  notices.push(...bootNotices(vm, olds, inputs));
  notices.forEach((line) => notice(withoutSecrets(line, news, secretInputs)));
  return resultOf(inputs, failures, { news, secretInputs });
}

/** Whether the VM that is new, or made anew, can be what its snapshot holds. */
async function snapshotFailures(
  vm: string,
  { snapshotId, stateDirectory, vmName, powerState, owner }: CheckedInputs,
  boot: BootConfiguration,
  notices: string[],
): Promise<readonly Failure[]> {
  if (snapshotId === undefined || holdsUnknown(snapshotId) || holdsUnknown(powerState)) return [];
  const { restoreFailures } = await import("./preflight/snapshot.js");
  const { urn } = owner;
  const found = await restoreFailures({ snapshotId, stateDirectory, vmName, boot, powerState, urn });
  if (found.failures.length === 0) {
    notices.push(noticeText("restores-snapshot", { vm, snapshot: snapshotId }));
  }
  return found.failures;
}

/**
 * The facts that follow from inputs which are not known yet. Whether an initramfs has to be made follows from the size of the
 * stateful disk as well, but a VM that exists keeps its own when its disk grows.
 */
function unknownFacts({ values, unknown }: SpecResult, facts: FactValues, olds: Values): Values {
  const isUnknown = (...names: readonly InputName[]) => names.some((name) => unknown.has(name));
  const names = new Set<keyof FactValues>();
  if (isUnknown("kernel")) names.add("kernelSha256");
  if (isUnknown("useNfsRoot", "rootfs")) names.add("rootfsDigest");
  if (isUnknown("useNfsRoot", "nfsServer")) names.add("nfsServerAddress");
  const later = Object.fromEntries([...names].map((name) => [name, facts[name] ?? UNKNOWN]));
  if (values.initramfs !== undefined) return later; // given, so that none is made
  if (isUnknown("kernel", "initramfs", "useNfsRoot", "ip", "backend")) {
    return { ...later, initramfsSha256: UNKNOWN, generatedInitramfs: UNKNOWN };
  }
  if (!isUnknown("statefulDiskMiB")) return later;
  const exists = Object.keys(olds).length > 0;
  const { initramfsSha256, generatedInitramfs } = exists
    ? olds
    : { initramfsSha256: UNKNOWN, generatedInitramfs: UNKNOWN };
  return { ...later, initramfsSha256, generatedInitramfs };
}

/**
 * The boot configuration, when all that it is made from is right and known. A limit that it passes is a failure, and so is a
 * guest whose console could not prove its root.
 */
function bootOf(
  failures: Failure[],
  spec: Spec | undefined,
  inputs: CheckedInputs,
): BootConfiguration | undefined {
  if (spec === undefined || failures.length > 0) return undefined;
  try {
    const boot = bootConfiguration(spec, factsOf(inputs));
    // A guest that cannot prove its root would fail at the end of its boot: refused here.
    if (!holdsUnknown(inputs.readiness)) claimOf(boot, spec.readiness);
    return boot;
  } catch (error) {
    if (!(error instanceof MicroVmError) || error.input === undefined) throw error;
    failures.push({ input: error.input, code: error.code, text: error.text });
    return undefined;
  }
}

/** What a person should read before a boot: the whole command line, which the engine cuts at 150 characters. */
function bootNotices(vm: string, olds: Values, inputs: Values): string[] {
  const { cmdline, nfsServer, nfsServerAddress } = inputs;
  if (cmdline === UNKNOWN || cmdline === olds["cmdline"]) return [];
  const notices = [noticeText("command-line", { vm, cmdline: String(cmdline) })];
  const link = linkOf(inputs);
  if (typeof nfsServerAddress !== "string" || link === undefined) return notices;
  const server = { server: String(nfsServer), address: seenFromGuest(nfsServerAddress, link) };
  if (link.nfsOnly === true) notices.unshift(noticeText("server-alone", { vm, ...server }));
  else if (isThisHost(nfsServerAddress)) notices.unshift(noticeText("server-is-this-host", server));
  return notices;
}
