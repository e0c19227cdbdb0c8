/** Inputs of the resources beside a MicroVm: each is held against a row of its resource's table. Pure. */

import type { z } from "zod";

import { shown } from "../errors.js";
import { type Failure, holdsUnknown, UNKNOWN } from "./validate.js";

/** What an input may be. */
export interface Row {
  readonly schema: z.ZodType;
  /** Completes "expected …, got …". */
  readonly expected: string;
  /** Whether it must be given. Default: no. */
  readonly required?: boolean;
  /** Whether it may be a secret; its value is never shown then. Default: no. */
  readonly mayBeSecret?: boolean;
  /** How the program names it, where that is another name. */
  readonly shownName?: string;
}

/** Inputs after each was looked at by itself. */
export interface ValidatedRows {
  /** What is given and right; what is not known yet as {@link UNKNOWN}. */
  readonly values: Readonly<Record<string, unknown>>;
  readonly failures: readonly Failure[];
}

/**
 * Holds each input against its row.
 *
 * @param news What the engine gives to check; `secretInputs` in it names the secrets.
 */
export function validateRows(
  rows: Readonly<Record<string, Row>>,
  news: Readonly<Record<string, unknown>>,
): ValidatedRows {
  const values: Record<string, unknown> = {};
  const failures: Failure[] = [];
  const given = news["secretInputs"];
  const secrets = new Set(Array.isArray(given) ? given : []);
  for (const [name, { schema, expected, required, mayBeSecret, shownName: input = name }] of Object.entries(
    rows,
  )) {
    const value = news[name];
    if (value === undefined || value === null) {
      if (required === true) failures.push({ input, text: `expected ${expected}, got nothing` });
    } else if (secrets.has(name) && mayBeSecret !== true) {
      failures.push({ input, text: "a secret cannot be used here: Pulumi's state shows it in clear" });
    } else if (holdsUnknown(value)) {
      values[name] = UNKNOWN;
    } else {
      const parsed = schema.safeParse(value);
      const found = mayBeSecret === true ? "something else" : shown(value);
      if (parsed.success) values[name] = parsed.data;
      else failures.push({ input, text: `expected ${expected}, got ${found}` });
    }
  }
  return { values, failures };
}
