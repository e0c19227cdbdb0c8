/** The first half of check: each input by itself. What is unknown in a preview, what is wrong, what is known. */

import { closest } from "fastest-levenshtein";
import { type ErrorCode, type MicroVmError, quoted, shown } from "../errors.js";
import { schemas, type InputName, type InputValues } from "./schema.js";

/**
 * What the engine passes for a value that is not known in a preview (`unknownValue` in @pulumi/pulumi's
 * runtime/rpc, the same in every release).
 */
export const UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";

/** Something wrong with one input. */
export interface Failure {
  /** Public name of the input, as a path: `readiness.timeoutSeconds`. */
  readonly input: string;
  /** What was expected, what was found; without the input's name. */
  readonly text: string;
  /** What kind of failure it is; `invalid-input` when absent. */
  readonly code?: ErrorCode;
}

/**
 * An error as the failure of an input.
 *
 * @param otherwise Whose failure it is where the error names none.
 */
export function asFailure({ input, code, text }: MicroVmError, otherwise: string): Failure {
  return { input: input ?? otherwise, code, text };
}

/** Inputs after each was looked at by itself. */
export interface ValidatedInputs {
  readonly values: InputValues;
  /** Inputs that are given, but not known in this preview. */
  readonly unknown: ReadonlySet<InputName>;
  readonly failures: readonly Failure[];
}

/** Whether a value is unknown, or holds something that is. */
export function holdsUnknown(value: unknown): boolean {
  if (value === UNKNOWN) return true;
  if (typeof value !== "object" || value === null) return false;
  return Object.values(value).some(holdsUnknown);
}

const inputNames = Object.keys(schemas) as InputName[];

/** Whether a property is one of the public inputs. */
export function isInputName(name: string): name is InputName {
  return Object.hasOwn(schemas, name);
}

/**
 * Holds each given input against its schema. An absent input is `undefined` or `null`.
 *
 * @param secret Names of inputs whose values must not be shown.
 */
export function validateInputs(
  inputs: Readonly<Record<string, unknown>>,
  secret: ReadonlySet<string>,
): ValidatedInputs {
  const values: Record<string, unknown> = {};
  const unknown = new Set<InputName>();
  const failures: Failure[] = [];
  for (const [name, value] of Object.entries(inputs)) {
    if (value === undefined || value === null) continue;
    if (!isInputName(name)) {
      const text = `unknown input; did you mean "${closest(name, inputNames)}"?`;
      failures.push({ input: shownName(name), text });
      continue;
    }
    if (holdsUnknown(value)) {
      unknown.add(name);
      continue;
    }
    const result = schemas[name].safeParse(value);
    if (result.success) {
      values[name] = result.data;
      continue;
    }
    for (const issue of firstOfEachPath(result.error.issues)) {
      failures.push(failureOf(name, value, issue, secret.has(name)));
    }
  }
  return { values, unknown, failures };
}

/** A name as it stands, unless it would break the line in which it is shown. */
function shownName(name: string): string {
  return /^[\w-]{1,64}$/.test(name) ? name : shownKey(name);
}

/** More of a name, or more names, would only push the rest of the message off the screen. */
const SHOWN_KEY_LENGTH = 80;
const SHOWN_KEYS = 5;

function shownKey(name: string): string {
  return quoted(name.length > SHOWN_KEY_LENGTH ? `${name.slice(0, SHOWN_KEY_LENGTH)}…` : name);
}

/** The part of a zod issue that is read here. */
interface Issue {
  readonly code: string;
  readonly path: readonly PropertyKey[];
  readonly message: string;
  readonly keys?: readonly string[];
}

/** More would only push the first ones off the screen. */
const MOST_ISSUES_OF_AN_INPUT = 5;

/** A port of 2^60 is too large in two ways: a person is told once. */
function firstOfEachPath(issues: readonly Issue[]): Issue[] {
  const byPath = new Map<string, Issue>();
  for (const issue of issues) {
    const path = issue.path.join(".");
    if (!byPath.has(path)) byPath.set(path, issue);
    if (byPath.size === MOST_ISSUES_OF_AN_INPUT) break;
  }
  return [...byPath.values()];
}

function failureOf(name: InputName, value: unknown, issue: Issue, secret: boolean): Failure {
  const input = [name, ...issue.path].map(String).join(".");
  if (issue.code === "unrecognized_keys") {
    const keys = issue.keys ?? [];
    const more = keys.length > SHOWN_KEYS ? ` and ${keys.length - SHOWN_KEYS} more` : "";
    const fields = keys.slice(0, SHOWN_KEYS).map(shownKey).join(", ");
    const which = `${keys.length === 1 ? "field" : "fields"} ${fields}${more}`;
    return { input, text: `expected ${issue.message}, got the unknown ${which}` };
  }
  const found = secret ? "a secret value" : shown(valueAt(value, issue.path));
  return { input, text: `expected ${issue.message}, got ${found}` };
}

/** The value at a path inside another; `undefined` where there is none. */
export function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (inner, key) =>
      typeof inner === "object" && inner !== null ? (inner as Record<PropertyKey, unknown>)[key] : undefined,
    value,
  );
}
