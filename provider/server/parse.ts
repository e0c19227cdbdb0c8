/** Bodies and queries against the schemas of their routes, in the words of the inputs of a resource. */

import { closest } from "fastest-levenshtein";
import { z } from "zod";
import { quoted, shown, withCode } from "../errors.js";
import { valueAt } from "../spec/validate.js";
import { Refusal } from "./refusal.js";

/**
 * What a body or query says.
 *
 * @param where What is looked at, for messages: `the body`.
 * @throws Refusal 400 with the first thing that is wrong.
 */
export function parse<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
  where: string,
): z.output<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const text = issue === undefined ? `${where} cannot be used` : textOf(issue, schema, value, where);
  throw new Refusal(400, withCode(text, "invalid-input"), "invalid-input");
}

/** More of a field's name would only push the rest off the screen. */
const SHOWN_CHARACTERS = 80;

function textOf(issue: z.core.$ZodIssue, schema: z.ZodType, value: unknown, where: string): string {
  const place = issue.path.join(".");
  if (issue.code === "unrecognized_keys") {
    const key = (issue.keys[0] ?? "").slice(0, SHOWN_CHARACTERS);
    const known = schema instanceof z.ZodObject && place === "" ? Object.keys(schema.shape) : [];
    const meant = known.length === 0 ? "" : `, perhaps ${quoted(closest(key, known))} is meant`;
    return `${place === "" ? where : place} has an unknown field ${quoted(key)}${meant}; see /openapi.yaml`;
  }
  return `${place === "" ? where : place}: expected ${expectedIn(issue)}, got ${shown(valueAt(value, issue.path))}`;
}

/** JSON's kinds of values, as a person calls them. */
const kinds: Readonly<Record<string, string>> = {
  string: "a text",
  number: "a number",
  int: "an integer",
  boolean: "true or false",
  array: "a list",
  object: "an object",
};

function expectedIn(issue: z.core.$ZodIssue): string {
  if (issue.code === "invalid_type") return kinds[issue.expected] ?? issue.expected;
  if (issue.code === "invalid_value") return issue.values.map(quoted).join(" or ");
  if (issue.code === "too_small") return `at least ${issue.minimum}`;
  if (issue.code === "too_big") return `at most ${issue.maximum}`;
  return issue.message;
}
