/** Inputs to checked inputs: every stage before the boot, in order. What this returns is previewed, stored and booted. */

import type { Backend } from "./backends/backend.js";
import { bootConfiguration, type BootConfiguration } from "./boot/boot.js";
import { guestLink, isThisHost } from "./boot/network.js";
import { MicroVmError } from "./errors.js";
import { printOnce } from "./notice.js";
import { observedInput, stateDirectoryOf } from "./observed.js";
import type { Values } from "./plan/fields.js";
import { createFirstFailures, plan, type Plan } from "./plan/plan.js";
import { gatherFacts } from "./preflight/facts.js";
import { preflight } from "./preflight/preflight.js";
import { specOf } from "./spec/check.js";
import { factsOf, type CheckedInputs } from "./spec/checked.js";
import { contextInputs, contextOf, keptDigests, programInputs, withoutSecrets } from "./spec/context.js";
import type { Spec } from "./spec/spec.js";
import { UNKNOWN, type Failure } from "./spec/validate.js";

/** A failure as the engine takes it. */
export interface CheckFailure {
  readonly property: string;
  readonly reason: string;
}

/** What check tells the engine. */
export interface CheckResult {
  readonly inputs: Values;
  readonly failures: CheckFailure[];
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
  backendOf: (values: Values) => Promise<Backend>,
): Promise<CheckResult> {
  const context = contextOf(olds, news);
  const result = await specOf(programInputs(news), context);
  const stateDirectory = stateDirectoryOf(olds);
  const gathered = await gatherFacts(result, { olds, kept: keptDigests(olds, news), stateDirectory });
  const failures: Failure[] = [...result.failures, ...gathered.failures];
  const notices: string[] = [];

  const exists = Object.keys(olds).length > 0;
  const inputs: Record<string, unknown> = {
    ...result.values,
    ...Object.fromEntries([...result.unknown].map((name) => [name, UNKNOWN])),
    ...gathered.facts,
    ...contextInputs(olds, news),
    stateDirectory,
  };
  inputs["observed"] = exists
    ? await observedInput(olds, inputs, () => backendOf(olds), printOnce)
    : inputs["powerState"];
  const boot = bootOf(failures, result.spec, inputs as unknown as CheckedInputs);
  inputs["cmdline"] = boot?.cmdline ?? UNKNOWN;
  inputs["disks"] = boot?.disks ?? UNKNOWN;

  const planned = exists ? plan(olds, inputs) : undefined;
  const vmName = String(inputs["vmName"]);
  notices.push(...gathered.notices.map((notice) => `${vmName}: ${notice}`));
  for (const failure of gathered.bootFailures) {
    // A VM that stays as it is does not boot from its sources again.
    if (planned === undefined || planned.action === "replace") failures.push(failure);
    else notices.push(`${vmName}: ${failure.input}: ${failure.text} (the VM keeps what it was made from)`);
  }
  if (planned !== undefined && failures.length === 0) {
    failures.push(...planned.failures);
    if (planned.action === "replace" && context.createFirst) {
      failures.push(...createFirstFailures(olds, inputs));
    }
    notices.push(...planned.notices);
  }
  const isKnown = result.unknown.size === 0;
  if (boot !== undefined && result.spec !== undefined && isKnown && failures.length === 0) {
    const found = await preflight({
      boot,
      backend: result.spec.backend,
      mode: result.spec.preflight,
      willBoot: willBoot(planned, inputs),
    });
    failures.push(...found.failures);
    notices.push(...found.warnings.map((warning) => `${vmName}: ${warning}`));
  }
  notices.push(...bootNotices(olds, inputs));
  const { secretInputs } = context;
  notices.forEach((notice) => printOnce(withoutSecrets(notice, news, secretInputs)));
  return {
    inputs,
    failures: failures.map(({ input, text }) =>
      checkFailure({ input, text: withoutSecrets(text, news, secretInputs) }, secretInputs),
    ),
  };
}

/** The boot configuration, when all that it is made from is right and known; a limit that it passes is a failure. */
function bootOf(
  failures: Failure[],
  spec: Spec | undefined,
  inputs: CheckedInputs,
): BootConfiguration | undefined {
  if (spec === undefined || failures.length > 0) return undefined;
  try {
    return bootConfiguration(spec, factsOf(inputs));
  } catch (error) {
    if (!(error instanceof MicroVmError) || error.input === undefined) throw error;
    failures.push({ input: error.input, text: error.message.slice(error.input.length + 2) });
    return undefined;
  }
}

/** Whether the up would start a guest: a new VM, a replaced one, or one that has stopped. */
function willBoot(planned: Plan | undefined, inputs: Values): boolean {
  if (inputs["powerState"] === "stopped") return false;
  return planned === undefined || planned.action === "replace" || inputs["observed"] === "stopped";
}

/** What a person should read before a boot: the whole command line, which the engine cuts at 150 characters. */
function bootNotices(olds: Values, inputs: Values): string[] {
  const { cmdline, vmName, nfsServer, nfsServerAddress } = inputs;
  if (cmdline === UNKNOWN || cmdline === olds["cmdline"]) return [];
  const notices = [`${String(vmName)}: kernel command line: ${String(cmdline)}`];
  if (typeof nfsServerAddress === "string" && isThisHost(nfsServerAddress)) {
    const { gatewayAddress } = guestLink({ ip: "static" });
    notices.unshift(
      `${String(vmName)}: nfsServer ${String(nfsServer)} is this host; the guest reaches it as ${gatewayAddress}`,
    );
  }
  return notices;
}

function checkFailure({ input, text }: Failure, secret: ReadonlySet<string>): CheckFailure {
  const property = input.split(".")[0] ?? input;
  // The engine prints the property's value beside the reason, a secret's in clear.
  return { property: secret.has(property) ? "" : property, reason: `${input}: ${text}` };
}
