import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { errorKinds } from "../../provider/errors.js";
import { messagesDocument, untold } from "./messages.js";
import { inputsTable } from "./tables.js";

const root = join(__dirname, "../..");

/** What stands between two markers of a document; `UPDATE_DOCS=1` writes it first. */
async function generatedPart(file: string, marker: string, wanted: string): Promise<string> {
  const path = join(root, file);
  const pattern = new RegExp(`(<!-- ${marker}:[^>]*-->\n)[^]*?(\n?<!-- /${marker} -->)`);
  let text = await readFile(path, "utf8");
  if (process.env["UPDATE_DOCS"] === "1") {
    text = text.replace(pattern, (_, begin: string) => `${begin}\n${wanted}\n\n<!-- /${marker} -->`);
    await writeFile(path, text);
  }
  const [found, begin = "", end = ""] = pattern.exec(text) ?? [""];
  return found.slice(begin.length, found.length - end.length).trim();
}

describe("the documents", () => {
  it("show in the README the table of inputs that the code goes by", async () => {
    const wanted = inputsTable();
    expect(unpadded(await generatedPart("README.md", "inputs", wanted))).toBe(unpadded(wanted));
  });

  it("show in MESSAGES.md every error and notice that a person can see, as the code has them", async () => {
    const wanted = messagesDocument();
    const path = join(root, "MESSAGES.md");
    if (process.env["UPDATE_DOCS"] === "1") await writeFile(path, wanted);
    expect(unpadded(await readFile(path, "utf8"))).toBe(unpadded(wanted));
    for (const code of Object.keys(errorKinds)) {
      const section = new RegExp(`\n### \`${code}\`\n[^]*?(?=\n### |$)`).exec(wanted)?.[0];
      expect(section, code).toMatch(/\n- /);
    }
  });

  it("leave out no notice: each comes from the table", () => {
    expect(untold()).toEqual([]);
  });

  it("name in the README the two commands that do everything", async () => {
    const readme = await readFile(join(root, "README.md"), "utf8");
    const { scripts } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as {
      scripts: Record<string, string>;
    };
    expect(readme).toContain("npm run demo");
    expect(readme).toContain("npm test");
    expect(Object.keys(scripts)).toEqual(expect.arrayContaining(["demo", "test"]));
  });
});

/** A formatter pads the cells of a table. */
function unpadded(table: string): string {
  return table.replaceAll(/ {2,}/g, " ").replaceAll(/-{3,}/g, "---");
}
