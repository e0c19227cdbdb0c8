/** What preflight finds, and what becomes of it: an error, a warning, or nothing. Pure. */

import type { PreflightMode } from "../spec/spec.js";
import type { Failure } from "../spec/validate.js";

/** Something that stands in the way of a boot. */
export interface Finding extends Failure {
  /** Whether a guest that boots now will certainly fail by it. */
  readonly certain: boolean;
}

/** Whether the up starts a guest; `maybe` where that depends on inputs that are not known yet. */
export type Boots = "yes" | "maybe" | "no";

/** Findings that fail the preview, and those that are only told. */
export interface Judged {
  readonly failures: readonly Finding[];
  readonly warnings: readonly Finding[];
}

/** An error only where a boot would happen and the finding is certain, and where the person wants errors at all. */
export function judge(findings: readonly Finding[], mode: PreflightMode, boots: Boots): Judged {
  if (mode === "off") return { failures: [], warnings: [] };
  const fails = ({ certain }: Finding): boolean => mode === "error" && boots === "yes" && certain;
  return {
    failures: findings.filter(fails),
    warnings: findings.filter((finding) => !fails(finding)),
  };
}
