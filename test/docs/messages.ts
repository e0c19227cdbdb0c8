/** MESSAGES.md: every error and notice, from the tables of the code and the texts in its source. */

import ts from "typescript";
import { type ErrorCode, errorKinds } from "../../provider/errors.js";
import { initramfsLinePrefix, initScript } from "../../provider/host/initramfs/init-script.js";
import { noticeKinds } from "../../provider/notices.js";
import { nodesOf, ofEachCall, propertyOf, sources, textsOf } from "./source.js";
import { table } from "./tables.js";

/** One text of an error. */
interface Message {
  readonly code: string;
  /** Names of the inputs that it can be about. */
  readonly inputs: readonly string[];
  readonly text: string;
}

const isCode = (text: string): text is ErrorCode => Object.hasOwn(errorKinds, text);

/** Details that are a part of another message: the error class that carries them, and where they end up. */
const DETAILS: Readonly<Record<string, Omit<Message, "text"> & { readonly before: string }>> = {
  NotAKernel: {
    code: "file-unusable",
    inputs: ["kernel"],
    before: "‹path› is not a kernel that can be booted: ",
  },
  XdrError: {
    code: "nfs-unreachable",
    inputs: ["nfsPort", "nfsMountPort"],
    before: "… does not answer as … does: ",
  },
  RecordError: {
    code: "nfs-unreachable",
    inputs: ["nfsPort", "nfsMountPort"],
    before: "… does not answer as … does: ",
  },
};

/** `new MicroVmError(code, text, { input })`, and the errors whose texts end up in one. */
function thrownIn(file: ts.SourceFile): Message[] {
  return nodesOf(file).flatMap((node) => {
    if (!ts.isNewExpression(node) || !ts.isIdentifier(node.expression)) return [];
    const [first, second, third] = node.arguments ?? [];
    const details = DETAILS[node.expression.text];
    if (details !== undefined && first !== undefined) {
      const { before, ...message } = details;
      return textsOf(first)
        .filter(isWorthTelling)
        .map((text) => ({ ...message, text: before + text }));
    }
    if (!/^(?:MicroVm|Shown)Error$/.test(node.expression.text)) return [];
    if (first === undefined || second === undefined) return [];
    const input =
      third !== undefined && ts.isObjectLiteralExpression(third) ? propertyOf(third, "input") : undefined;
    return messages(textsOf(first), input, second);
  });
}

/** Object literals that become errors: `{ input, text, code? }`, and `{ code, what, remedy? }` of a failed boot. */
function objectsIn(file: ts.SourceFile): Message[] {
  return nodesOf(file).flatMap((node) => {
    if (!ts.isObjectLiteralExpression(node)) return [];
    const [code, input, text, what] = ["code", "input", "text", "what"].map((name) => propertyOf(node, name));
    if (input !== undefined && text !== undefined) {
      return messages(code === undefined ? [codeOfFinding(node)] : textsOf(code), input, text);
    }
    if (code === undefined || what === undefined) return [];
    const remedy = propertyOf(node, "remedy");
    const remedies = remedy === undefined ? [] : textsOf(remedy).filter(isWorthTelling);
    return messages(textsOf(code), input, what).map((message) =>
      remedies.length === 0 ? message : { ...message, text: `${message.text}. ${remedies.join(" / ")}` },
    );
  });
}

function messages(
  codes: readonly string[],
  input: ts.Expression | undefined,
  text: ts.Expression,
): Message[] {
  return ofEachCall(input, () => {
    const inputs = input === undefined ? [] : textsOf(input).filter((name) => !name.startsWith("‹"));
    return codes.flatMap((code) =>
      textsOf(text)
        .filter(isWorthTelling)
        .map((found) => ({ code, inputs, text: found })),
    );
  });
}

/** A text that is nothing but another's is told there. */
const isWorthTelling = (text: string) => /[a-z]{2}/i.test(text.replaceAll(/‹[^›]*›/g, ""));

/** Of a finding without a code: what is said about init is about the root, else about the server; other failures are of inputs. */
function codeOfFinding(node: ts.Node): ErrorCode {
  if (!node.getSourceFile().fileName.endsWith("nfs/describe.ts")) return "invalid-input";
  let clause: ts.Node = node;
  while (clause.parent !== undefined && !ts.isCaseClause(clause)) clause = clause.parent;
  const label = ts.isCaseClause(clause) ? clause.expression.getText() : "";
  if (label === '"ok"') return "invalid-input";
  return /init|interpreter/.test(label) ? "root-unusable" : "nfs-unreachable";
}

/** What the schemas expect, each once. */
function expectations(files: readonly ts.SourceFile[]): string[] {
  const file = files.find(({ fileName }) => fileName.endsWith("spec/schema.ts"));
  const texts = nodesOf(file ?? fail("provider/spec/schema.ts")).flatMap((node) => {
    if (!ts.isObjectLiteralExpression(node)) return [];
    const error = propertyOf(node, "error");
    return error === undefined ? [] : textsOf(error).filter(isWorthTelling);
  });
  return [...new Set(texts)].toSorted();
}

function fail(what: string): never {
  throw new Error(`there is no ${what}`);
}

/** What a guest's console tells: pattern, cause and remedy. */
function symptoms(files: readonly ts.SourceFile[]): (readonly string[])[] {
  return files
    .filter(({ fileName }) => fileName.startsWith("provider/console/"))
    .flatMap(nodesOf)
    .flatMap((node) => {
      if (!ts.isObjectLiteralExpression(node)) return [];
      const [pattern, cause, remedy] = ["pattern", "cause", "remedy"].map((name) => propertyOf(node, name));
      if (cause === undefined || remedy === undefined) return [];
      const causes = textsOf(cause).filter(isWorthTelling);
      if (causes.length === 0) return [];
      return [
        [
          pattern === undefined ? "" : span(pattern.getText()),
          causes.map(span).join(" "),
          textsOf(remedy).map(span).join(" "),
        ],
      ];
    });
}

/** What our initramfs says when it gives up. */
function initramfsLines(): string[] {
  const failures = [...initScript.matchAll(/\bfail "((?:[^"\\]|\\.)*)"/g)].map((match) => match[1] ?? "");
  const tries = [...initScript.matchAll(/\btry "((?:[^"\\]|\\.)*)"/g)].map(
    (match) => `${match[1]}: $boot_said`,
  );
  return [...failures, ...tries]
    .filter((text) => isWorthTelling(text.replaceAll(/\$\S+/g, "")))
    .map((text) =>
      text.replaceAll(
        /\$\(.*\)|\$\{?(?:boot_)?(\w+)[^ ,:;]*\}?/g,
        (_, name?: string) => `‹${name ?? "its words"}›`,
      ),
    )
    .map((text) => `${initramfsLinePrefix}error: ${text}`);
}

/** Places in the code at which a person would be told something that the table of notices does not hold. */
export function untold(): string[] {
  const files = sources("provider", "sdk");
  return files.flatMap((file) =>
    nodesOf(file).flatMap((node) => {
      const isNotice =
        ts.isCallExpression(node) &&
        /(?:^|\.)(?:notice|printNotice|printOnce|warn)$/.test(node.expression.getText()) &&
        node.arguments[0] !== undefined &&
        !isFromTable(node.arguments[0]);
      if (!isNotice) return [];
      const { line } = file.getLineAndCharacterOfPosition(node.getStart());
      return [`${file.fileName}:${line + 1}: ${node.getText().slice(0, 80)}`];
    }),
  );
}

/** A notice's text comes from the table, or is handed on. */
function isFromTable(text: ts.Expression): boolean {
  if (ts.isIdentifier(text)) return true;
  if (!ts.isCallExpression(text)) return false;
  return /^(?:noticeText|withoutSecrets)$/.test(text.expression.getText());
}

/** The whole document. */
export function messagesDocument(): string {
  const files = sources("provider", "sdk");
  const found = files
    .filter(({ fileName }) => !fileName.endsWith("errors.ts") && !fileName.endsWith("notices.ts"))
    .flatMap((file) => [...thrownIn(file), ...objectsIn(file)])
    .filter(({ code, text }) => isCode(code) && !text.includes("can be mounted, and"));
  const sections = Object.entries(errorKinds).map(([code, { cause, remedy }]) =>
    [
      `### \`${code}\``,
      `${cause} ${remedy}`,
      lines(found.filter((message) => message.code === code)),
      ...(code === "invalid-input" ? [expected(files)] : []),
      ...(code === "boot-failed" ? [consoleTables(files)] : []),
    ].join("\n\n"),
  );
  return `${[
    "# Messages",
    "Every error and notice of this package. An error's first line ends in its code, as in `[nfs-unreachable]`; below it are the texts of each code, with the inputs that they are about. Between ‹ and › stand values, or the words that there are to choose from; between [ and ] what may be left out.",
    "This document is made from the code: `UPDATE_DOCS=1 npx vitest run test/docs` writes it.",
    "## Notices",
    "Lines beside the steps of a preview or an up. They fail nothing.",
    table(
      ["code", "text", "when", "what to do"],
      Object.entries(noticeKinds).map(([code, { text, cause, remedy }]) => [
        `\`${code}\``,
        span(text.replaceAll("{", "‹").replaceAll("}", "›")),
        cause,
        remedy,
      ]),
    ),
    "## Errors",
    table(
      ["code", "cause", "remedy"],
      Object.entries(errorKinds).map(([code, { cause, remedy }]) => [
        `[\`${code}\`](#${code})`,
        cause,
        remedy,
      ]),
    ),
    ...sections,
  ].join("\n\n")}\n`;
}

function lines(found: readonly Message[]): string {
  const byText = new Map<string, Set<string>>();
  for (const { inputs, text } of found) {
    const names = byText.get(text) ?? new Set();
    inputs.forEach((name) => names.add(name));
    byText.set(text, names);
  }
  return [...byText]
    .map(([text, inputs]) => {
      const about = [...inputs].map((name) => `\`${name}\``).join(", ");
      return `- ${about === "" ? "" : `${about}: `}${span(text)}`;
    })
    .toSorted()
    .join("\n");
}

function expected(files: readonly ts.SourceFile[]): string {
  return [
    "An input by itself: `expected …, got ‹value›`, where expected is",
    expectations(files)
      .map((text) => `- ${span(text)}`)
      .join("\n"),
  ].join("\n\n");
}

function consoleTables(files: readonly ts.SourceFile[]): string {
  return [
    "The guest's console, by the first pattern that matches, in the kernel's words or in those of user space:",
    table(["console line", "cause", "remedy"], symptoms(files)),
    "What our own initramfs says when it gives up:",
    initramfsLines()
      .map((text) => `- ${span(text)}`)
      .join("\n"),
  ].join("\n\n");
}

/** A text as it stands, in a code span of Markdown. */
function span(text: string): string {
  const line = text.replaceAll(/\s*\n\s*/g, " ").replaceAll("|", "\\|");
  if (!line.includes("`")) return `\`${line}\``;
  return /^`|`$/.test(line) ? `\`\` ${line} \`\`` : `\`\`${line}\`\``;
}
