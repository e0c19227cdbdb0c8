/** The tables of the documentation, rendered from the code's own tables. */

import { fields, type Policy } from "../../provider/plan/fields.js";

/** Inputs whose content is compared under another name. */
const comparedByContent = new Set(["kernel", "initramfs"]);

/** README: every input, what it means and what changing it does. */
export function inputsTable(): string {
  const rows = Object.entries(fields).map(([name, field]) => [
    `\`${name}\``,
    field.type,
    field.default ?? "",
    ...(["qemu", "cloud-hypervisor", "arrakis"] as const).map((backend) =>
      comparedByContent.has(name) && backend !== "arrakis" ? "by content" : changeOf(field.change[backend]),
    ),
    field.meaning,
  ]);
  return table(
    ["input", "type", "default", "a change is, on qemu", "on cloud-hypervisor", "on arrakis", "meaning"],
    rows,
  );
}

function changeOf(policy: Policy): string {
  return policy === "none" ? "its values'" : policy;
}

/** A table of Markdown. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [tableLine(head), tableLine(head.map(() => "---")), ...rows.map(tableLine)].join("\n");
}

function tableLine(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}
