/** What every check comes to, and whether the up would boot a guest. Pure. */

import { type ErrorCode, withCode } from "./errors.js";
import type { Values } from "./plan/fields.js";
import type { Plan } from "./plan/plan.js";
import type { Boots } from "./preflight/finding.js";
import { withoutSecrets } from "./spec/context.js";
import { holdsUnknown, UNKNOWN, type Failure } from "./spec/validate.js";

/** A failure as the engine takes it. */
export interface CheckFailure {
  readonly property: string;
  readonly reason: string;
  /** For others than the engine, which leaves it out. */
  readonly code?: ErrorCode;
}

/** What check tells the engine. */
export interface CheckResult {
  readonly inputs: Values;
  readonly failures: CheckFailure[];
}

/** The result for the engine. */
export function resultOf(
  inputs: Values,
  failures: readonly Failure[],
  { news, secretInputs }: { readonly news: Values; readonly secretInputs: ReadonlySet<string> },
): CheckResult {
  return {
    // In an up, the engine takes no unknown value and would tell of that instead of the failures.
    inputs: failures.length === 0 ? inputs : knownInputs(inputs),
    failures: failures.map(({ text, ...failure }) =>
      checkFailure({ ...failure, text: withoutSecrets(text, news, secretInputs) }, secretInputs),
    ),
  };
}

/** Inputs without those that hold what is not known yet. */
export function knownInputs(inputs: Values): Values {
  return Object.fromEntries(Object.entries(inputs).filter(([, value]) => !holdsUnknown(value)));
}

/** The last part of a URN: what the program calls the resource. */
export function resourceName(urn: string): string {
  return urn.split("::").at(-1) ?? urn;
}

/** Whether the up would start a guest: a new VM, a replaced one, or one that has stopped. */
export function bootsOf(planned: Plan | undefined, inputs: Values): Boots {
  const { powerState, observed } = inputs;
  if (powerState === "stopped") return "no";
  const isSure = planned === undefined || isCertain(planned, inputs) || observed === "stopped";
  if (isSure) return powerState === UNKNOWN ? "maybe" : "yes";
  return planned.action === "replace" ? "maybe" : "no";
}

/** Whether the VM is replaced whatever the inputs that are not known yet turn out to be. */
export function isCertain({ changes }: Plan, inputs: Values): boolean {
  return changes.some(({ field, policy }) => policy === "replace" && !holdsUnknown(inputs[field]));
}

function checkFailure(failure: Failure, secret: ReadonlySet<string>): CheckFailure {
  const { input, text, code = "invalid-input" } = failure;
  const property = input.split(".")[0] ?? input;
  // The engine prints the property's value beside the reason, a secret's in clear.
  return {
    property: secret.has(property) ? "" : property,
    reason: withCode(`${input}: ${text}`, code),
    code,
  };
}
