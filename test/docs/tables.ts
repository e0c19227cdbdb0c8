/** The tables of the documentation, rendered from the code's own tables. */

import { errorKinds } from "../../provider/errors.js";
import { fields, type Policy } from "../../provider/plan/fields.js";

/** Inputs whose content is compared under another name. */
const comparedByContent = new Set(["kernel", "initramfs"]);

/** README: every input, what it means and what changing it does. */
export function inputsTable(): string {
  const rows = Object.entries(fields).map(([name, field]) => [
    `\`${name}\``,
    field.type,
    field.default ?? "",
    comparedByContent.has(name) ? "by content" : changeOf(field.change.qemu),
    field.meaning,
  ]);
  return table(["input", "type", "default", "a change is", "meaning"], rows);
}

function changeOf(policy: Policy): string {
  return policy === "none" ? "its values'" : policy;
}

/** MESSAGES.md: every error code with its cause and remedy. */
export function errorsTable(): string {
  const rows = Object.entries(errorKinds).map(([code, kind]) => [`\`${code}\``, kind.cause, kind.remedy]);
  return table(["code", "cause", "remedy"], rows);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [tableLine(head), tableLine(head.map(() => "---")), ...rows.map(tableLine)].join("\n");
}

function tableLine(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}
