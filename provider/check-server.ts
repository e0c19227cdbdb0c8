/** Inputs of a VM on a server to checked inputs. Nothing on that host can be looked at from here: what the server does not tell is not guessed. */

import { can, unsupportedFailures } from "./backends/arrakis/features.js";
import { statusOf } from "./backends/arrakis/api.js";
import type { AnyBackend, ArrakisBackend } from "./backends/backend.js";
import { bootsOf, type CheckResult, resourceName, resultOf } from "./check-result.js";
import { MicroVmError } from "./errors.js";
import type { Notice } from "./notice.js";
import { noticeText } from "./notices.js";
import { observedInput } from "./observed.js";
import type { Values } from "./plan/fields.js";
import { createFirstFailures, plan } from "./plan/plan.js";
import { type Finding, judge } from "./preflight/finding.js";
import { lookAtServer, type ServerLook } from "./preflight/server.js";
import type { ResourceContext, SpecResult } from "./spec/check.js";
import { contextInputs, withoutSecrets } from "./spec/context.js";
import { type CheckedServerInputs, serverVmOf } from "./spec/server-inputs.js";
import { type Failure, holdsUnknown, UNKNOWN } from "./spec/validate.js";

/** What is checked. */
export interface ServerCheck {
  /** Checked inputs of the last up; `{}` when there was none, or when a replacement is named. */
  readonly olds: Values;
  readonly news: Values;
  readonly context: ResourceContext;
  readonly result: SpecResult;
  readonly backendOf: (values: Values) => Promise<AnyBackend>;
  readonly notice: Notice;
}

/** What the server adds to the inputs, and what stands in the way. */
interface Findings {
  readonly derived: Values;
  readonly failures: readonly Failure[];
  readonly findings: readonly Finding[];
  readonly notices: readonly string[];
}

const nothing: Findings = { derived: {}, failures: [], findings: [], notices: [] };

/** Checks the inputs of one resource on a server. */
export async function checkServerInputs(check: ServerCheck): Promise<CheckResult> {
  const { olds, news, context, result, backendOf, notice } = check;
  const { values, unknown } = result;
  const failures: Failure[] = [...result.failures];
  const exists = Object.keys(olds).length > 0;
  const inputs: Record<string, unknown> = {
    ...values,
    ...Object.fromEntries([...unknown].map((name) => [name, UNKNOWN])),
    // Its token may become known later, and its URL decides already.
    backend: news["backend"],
    ...contextInputs(olds, news),
  };
  inputs["observed"] = exists
    ? await observedInput(olds, inputs, () => backendOf(olds), notice)
    : inputs["powerState"];
  const planned = exists ? plan(olds, inputs) : undefined;
  const notices: string[] = [...(planned?.notices ?? [])];
  if (planned !== undefined && failures.length === 0) {
    failures.push(...planned.failures);
    if (planned.action === "replace" && context.createFirst)
      failures.push(...createFirstFailures(olds, inputs));
  }
  const isMade = planned === undefined || planned.action === "replace";
  if (isMade) {
    const asked = failures.length > 0 ? nothing : await askServer(check);
    Object.assign(inputs, asked.derived);
    failures.push(...asked.failures);
    const mode = unknown.has("preflight") ? "warn" : (values.preflight ?? "error");
    const judged = judge(asked.findings, mode, bootsOf(planned, inputs));
    failures.push(...judged.failures);
    for (const { input, text } of judged.warnings) {
      notices.push(noticeText("preflight-warning", { vm: nameOf(check), input, finding: text }));
    }
    notices.push(...asked.notices);
  } else {
    // The address in it was given when the VM was made: only a VM that is made anew has another.
    for (const name of ["cmdline", "disks"]) if (olds[name] !== undefined) inputs[name] = olds[name];
  }
  const { secretInputs } = context;
  notices.forEach((line) => notice(withoutSecrets(line, news, secretInputs)));
  return resultOf(inputs, failures, { news, secretInputs });
}

/** Asks what the server would make of a VM that is new or made anew. */
async function askServer(check: ServerCheck): Promise<Findings> {
  const { result, context } = check;
  const { values, unknown } = result;
  const vm = nameOf(check);
  const backend = values.backend as ArrakisBackend | undefined;
  const missing = [...unknown].join(", ");
  const later = missing === "" ? [] : [noticeText("server-later", { vm, missing })];
  if (values.preflight === "off" || backend === undefined) return { ...nothing, notices: later };
  const look = await lookAtServer(backend);
  if (!look.isThere) return { ...nothing, findings: [look.finding], notices: later };
  const checked = { ...values, vmName: vm, owner: context.owner, backend } as CheckedServerInputs;
  const { start } = serverVmOf(checked);
  const failures = unsupportedFailures(look.health, start);
  const found = { ...nothing, failures, notices: later };
  if (failures.length > 0) return found;
  if (!can(look.health, "dryRun")) {
    return { ...found, notices: [...later, noticeText("server-unchecked", { vm, url: backend.url })] };
  }
  // A first preview may show what is not known yet, an up may not.
  if (missing !== "") return { ...found, derived: { cmdline: UNKNOWN, disks: UNKNOWN } };
  return await dryRun(look, start, vm);
}

/** What the server would boot, to the letter; its refusal is one of the preview. */
async function dryRun(
  { api }: ServerLook & { isThere: true },
  start: Parameters<typeof api.dryRun>[0],
  vm: string,
): Promise<Findings> {
  try {
    const { cmdline, disks } = await api.dryRun(start);
    const notices = [noticeText("command-line", { vm, cmdline })];
    return { ...nothing, derived: { cmdline, disks }, notices };
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    // A VM of that name may be the one that goes first: nothing tells here. Create looks again.
    const { input = "backend", code, text } = error;
    if (code === "name-taken") return nothing;
    return { ...nothing, findings: [{ input, code, text, certain: statusOf(error) !== undefined }] };
  }
}

function nameOf({ result, context }: ServerCheck): string {
  const { vmName } = result.values;
  return vmName === undefined || holdsUnknown(vmName) ? resourceName(context.owner.urn) : vmName;
}
