/** `microvm changes`: what a guest has changed in its AgentFS root, as a tree. */

import { resolve } from "node:path";

import { quoted } from "../errors.js";
import { type Change, readChanges } from "../exports/changes.js";
import type { CommandContext } from "./microvm.js";

/**
 * Prints what has changed in a database.
 *
 * @param database An id, of `.agentfs/ID.db` in this folder, or a path, told apart as `agentfs` does.
 * @throws MicroVmError as {@link readChanges}.
 */
export async function printChanges(
  { print }: CommandContext,
  database: string,
  json: boolean,
): Promise<number> {
  const isPath = database.includes("/") || database.endsWith(".db");
  const found = await readChanges(resolve(isPath ? database : `.agentfs/${database}.db`));
  if (json) {
    print(JSON.stringify(found, undefined, 2));
    return 0;
  }
  for (const line of treeOf(found.changes)) print(line);
  print(summaryOf(found.changes));
  return 0;
}

/** A folder of the tree; a change where it is one itself. */
interface Node {
  readonly children: Map<string, Node>;
  change?: Change;
}

const LETTERS = { added: "A", modified: "M", deleted: "D" } as const;

/** The changes as lines: the folders that hold them, and each with its letter, mode and size. */
export function treeOf(changes: readonly Change[]): string[] {
  const root: Node = { children: new Map() };
  for (const change of changes) {
    let node = root;
    for (const name of change.path.split("/").slice(1)) {
      let child = node.children.get(name);
      if (child === undefined) {
        child = { children: new Map() };
        node.children.set(name, child);
      }
      node = child;
    }
    node.change = change;
  }
  return changes.length === 0 ? [] : ["/", ...linesOf(root, "")];
}

function linesOf({ children }: Node, indent: string): string[] {
  const names = [...children.keys()].toSorted();
  return names.flatMap((name, index) => {
    const child = children.get(name) ?? { children: new Map() };
    const isLast = index === names.length - 1;
    const line = `${indent}${isLast ? "└── " : "├── "}${wordsOf(name, child)}`;
    return [line, ...linesOf(child, `${indent}${isLast ? "    " : "│   "}`)];
  });
}

function wordsOf(name: string, { change, children }: Node): string {
  // A guest chooses the names: none of them may play on the terminal.
  const shown = /[\p{Cc}\p{Cf}]/u.test(name) ? quoted(name) : name;
  const isFolder = change?.kind === "directory" || children.size > 0;
  const path = `${shown}${isFolder ? "/" : change?.kind === "symlink" ? "@" : ""}`;
  if (change === undefined) return path;
  const size = change.kind === "file" ? `, ${sizeInWords(change.sizeBytes)}` : "";
  return `${LETTERS[change.change]} ${path} (${change.mode}${size})`;
}

function sizeInWords(bytes: number): string {
  if (bytes < 1024) return `${bytes} ${bytes === 1 ? "byte" : "bytes"}`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let size = bytes / 1024;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size.toFixed(1)} ${units[unit]}`;
}

function summaryOf(changes: readonly Change[]): string {
  if (changes.length === 0) return "nothing has changed";
  const kinds = ["added", "modified", "deleted"] as const;
  const counts = kinds.flatMap((kind) => {
    const count = changes.filter(({ change }) => change === kind).length;
    return count === 0 ? [] : [`${count} ${kind}`];
  });
  return counts.join(", ");
}
