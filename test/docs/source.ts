/** Reads message texts out of the source: what a person may see, with ‹placeholders› where values go. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";

const root = join(__dirname, "../..");

/** The parsed files of a folder of the repository, by path. */
export function sources(...folders: readonly string[]): ts.SourceFile[] {
  const files = folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts"))
      .map((name) => join(folder, name)),
  );
  return files
    .toSorted()
    .map((name) =>
      ts.createSourceFile(name, readFileSync(join(root, name), "utf8"), ts.ScriptTarget.Latest, true),
    );
}

const known = new WeakMap<ts.Node, ts.Node[]>();

/** Every node below another. */
export function nodesOf(node: ts.Node): ts.Node[] {
  const before = known.get(node);
  if (before !== undefined) return before;
  const found: ts.Node[] = [];
  known.set(node, found);
  const visit = (inner: ts.Node): void => {
    found.push(inner);
    ts.forEachChild(inner, visit);
  };
  ts.forEachChild(node, visit);
  return found;
}

/** The value of a property of an object literal; a shorthand's is the identifier itself. */
export function propertyOf(object: ts.ObjectLiteralExpression, name: string): ts.Expression | undefined {
  for (const property of object.properties) {
    if (property.name === undefined || !ts.isIdentifier(property.name) || property.name.text !== name)
      continue;
    if (ts.isPropertyAssignment(property)) return property.initializer;
    if (ts.isShorthandPropertyAssignment(property)) return property.name;
  }
  return undefined;
}

/** How far a value is followed: through constants, parameters and local functions. */
const MOST_STEPS = 4;
/** More texts than this from one place are one text with a placeholder. */
const MOST_TEXTS = 12;

/** Every text that an expression can be, as far as its own file tells; what is not known is a ‹placeholder›. */
export function textsOf(expression: ts.Expression, steps = MOST_STEPS): string[] {
  const texts = [...new Set(alternatives(expression, steps))];
  return texts.length <= MOST_TEXTS ? texts : [placeholder(expression)];
}

function alternatives(expression: ts.Expression, steps: number): string[] {
  if (ts.isStringLiteralLike(expression)) return [expression.text];
  if (ts.isNumericLiteral(expression)) return [expression.text.replaceAll("_", "")];
  if (ts.isParenthesizedExpression(expression) || ts.isAsExpression(expression)) {
    return textsOf(expression.expression, steps);
  }
  if (ts.isTemplateExpression(expression)) {
    return expression.templateSpans.reduce(
      (heads, span) => joined(heads, inPlace(span.expression, steps), span.literal.text),
      [expression.head.text],
    );
  }
  if (ts.isBinaryExpression(expression) && expression.operatorToken.kind === ts.SyntaxKind.PlusToken) {
    return joined(textsOf(expression.left, steps), textsOf(expression.right, steps));
  }
  if (
    ts.isBinaryExpression(expression) &&
    expression.operatorToken.kind === ts.SyntaxKind.QuestionQuestionToken
  ) {
    const [left, right] = [textsOf(expression.left, steps), textsOf(expression.right, steps)];
    return left.every(isPlaceholder) ? [placeholder(expression.left)] : [...left, ...right];
  }
  if (ts.isConditionalExpression(expression)) {
    return [...textsOf(expression.whenTrue, steps), ...textsOf(expression.whenFalse, steps)];
  }
  if (ts.isArrowFunction(expression) && !ts.isBlock(expression.body)) return textsOf(expression.body, steps);
  if (steps > 0) {
    const followed = follow(expression, steps - 1);
    if (followed.length > 0) return followed;
  }
  return [placeholder(expression)];
}

/** What stands in a template for a value: optional words in brackets, words to choose from between ‹ and ›. */
function inPlace(expression: ts.Expression, steps: number): string[] {
  const texts = textsOf(expression, steps);
  // A parameter that is given words makes a text of each; one that is given values is a value.
  if (isOwnParameter(expression)) {
    const hasWords = texts.some((text) => text.replaceAll(/‹[^›]*›/g, "").includes(" "));
    return hasWords ? texts : [placeholder(expression)];
  }
  if (texts.length === 1) return texts;
  const words = texts.filter((text) => text !== "");
  const choice = words.map((text) => text.replaceAll(/[‹›]/g, "…").replaceAll(/…+/g, "…")).join(" / ");
  return [words.length < texts.length ? `[${choice}]` : `‹${choice}›`];
}

const isPlaceholder = (text: string) => /^‹[^‹›]*›$/.test(text);

function joined(heads: readonly string[], ...tails: readonly (string | readonly string[])[]): string[] {
  return tails.reduce<string[]>(
    (texts, tail) =>
      texts.flatMap((text) => (typeof tail === "string" ? [tail] : tail).map((end) => text + end)),
    [...heads],
  );
}

type Callable = ts.FunctionDeclaration | ts.ArrowFunction | ts.MethodDeclaration | ts.ConstructorDeclaration;

function isCallable(node: ts.Node): node is Callable {
  return ts.isFunctionDeclaration(node) || ts.isArrowFunction(node) || ts.isMethodDeclaration(node);
}

/** The function whose parameter an identifier is. */
function parameterOf(expression: ts.Expression): { callable: Callable; index: number } | undefined {
  if (!ts.isIdentifier(expression)) return undefined;
  for (let node: ts.Node = expression; node.parent !== undefined; node = node.parent) {
    if (!isCallable(node)) continue;
    const index = node.parameters.findIndex(
      ({ name }) => ts.isIdentifier(name) && name.text === expression.text,
    );
    if (index !== -1) return { callable: node, index };
  }
  return undefined;
}

const isOwnParameter = (expression: ts.Expression) => parameterOf(expression) !== undefined;

/** The texts of what an identifier or a call stands for in its own file; empty when that is not told there. */
function follow(expression: ts.Expression, steps: number): string[] {
  const file = expression.getSourceFile();
  const parameter = parameterOf(expression);
  if (parameter !== undefined) return ofParameter(parameter, file, steps);
  if (ts.isIdentifier(expression)) {
    const initializer = constantOf(expression.text, file);
    const texts = initializer === undefined ? [] : textsOf(initializer, steps);
    return texts.every(isPlaceholder) ? [] : texts;
  }
  if (!ts.isCallExpression(expression) || !ts.isIdentifier(expression.expression)) return [];
  const called = functionOf(expression.expression.text, file);
  if (called?.body === undefined || !ts.isBlock(called.body)) return [];
  const texts = nodesOf(called.body).flatMap((node) =>
    ts.isReturnStatement(node) && node.expression !== undefined ? textsOf(node.expression, steps) : [],
  );
  return texts.every(isPlaceholder) ? [] : texts.filter((text) => !isPlaceholder(text));
}

function ofParameter(
  { callable, index }: { callable: Callable; index: number },
  file: ts.SourceFile,
  steps: number,
): string[] {
  const fallback = callable.parameters[index]?.initializer;
  return callsOf(callable, file).flatMap((call) => {
    const argument = call.arguments[index] ?? fallback;
    return argument === undefined ? [] : textsOf(argument, steps);
  });
}

/** The one call that counts while {@link ofEachCall} looks at it. */
let onlyCall: ts.CallExpression | undefined;

function callsOf(callable: Callable, file: ts.SourceFile): ts.CallExpression[] {
  const name = nameOf(callable);
  const calls = nodesOf(file).filter(
    (node): node is ts.CallExpression => ts.isCallExpression(node) && calledName(node) === name,
  );
  return onlyCall !== undefined && calls.includes(onlyCall) ? [onlyCall] : calls;
}

/**
 * Looks at a place once for each call of the function whose parameter an expression is, so that what is read there goes
 * together; once where it is none.
 */
export function ofEachCall<T>(expression: ts.Expression | undefined, look: () => T[]): T[] {
  const parameter = expression === undefined ? undefined : parameterOf(expression);
  if (parameter === undefined || expression === undefined) return look();
  return callsOf(parameter.callable, expression.getSourceFile()).flatMap((call) => {
    onlyCall = call;
    try {
      return look();
    } finally {
      onlyCall = undefined;
    }
  });
}

function calledName({ expression }: ts.CallExpression): string | undefined {
  if (ts.isIdentifier(expression)) return expression.text;
  return ts.isPropertyAccessExpression(expression) ? expression.name.text : undefined;
}

function nameOf(callable: Callable): string | undefined {
  if (!ts.isArrowFunction(callable)) return callable.name?.getText();
  const { parent } = callable;
  return ts.isVariableDeclaration(parent) ? parent.name.getText() : undefined;
}

function functionOf(name: string, file: ts.SourceFile): Callable | undefined {
  return nodesOf(file).find((node): node is Callable => isCallable(node) && nameOf(node) === name);
}

function constantOf(name: string, file: ts.SourceFile): ts.Expression | undefined {
  const declaration = nodesOf(file).find(
    (node): node is ts.VariableDeclaration =>
      ts.isVariableDeclaration(node) && ts.isIdentifier(node.name) && node.name.text === name,
  );
  return declaration?.initializer;
}

/** Functions whose result is named by what they are given. */
const WRAPPERS = new Set(["shown", "quoted", "String", "errorName", "exitName", "printable", "sentence"]);

/** A name for a value, from the expression that makes it. */
function placeholder(expression: ts.Expression): string {
  const words = nameFor(expression)
    .replace("#", "")
    .split(/(?<=[a-z])(?=[A-Z][a-z])/);
  return `‹${words.map((word) => (/^(?:MiB|[A-Z_]+)$/.test(word) ? word : word.toLowerCase())).join(" ")}›`;
}

function nameFor(expression: ts.Expression): string {
  if (ts.isIdentifier(expression)) return expression.text;
  if (ts.isPropertyAccessExpression(expression)) return expression.name.text;
  if (ts.isNumericLiteral(expression)) return expression.text;
  if (ts.isElementAccessExpression(expression)) {
    return expression.expression.getText() === "match" ? "what it says" : nameFor(expression.expression);
  }
  if (ts.isCallExpression(expression)) {
    const name = calledName(expression) ?? "value";
    const [argument] = expression.arguments;
    if (name === "messageOf") return "the reason";
    if (name === "stringify" && argument !== undefined) return nameFor(argument);
    if (WRAPPERS.has(name) && argument !== undefined) return nameFor(argument);
    // Of a chain of calls (`list.join(", ")`) what it begins with says most.
    return ts.isPropertyAccessExpression(expression.expression)
      ? nameFor(expression.expression.expression)
      : name;
  }
  if (ts.isBinaryExpression(expression)) return nameFor(expression.left);
  if (ts.isNonNullExpression(expression) || ts.isAwaitExpression(expression))
    return nameFor(expression.expression);
  if (ts.isParenthesizedExpression(expression)) return nameFor(expression.expression);
  return "value";
}
