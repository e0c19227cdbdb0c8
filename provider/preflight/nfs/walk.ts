/** From a path to a file within the export, symbolic links followed as the guest will (path_resolution(7)). */

import type { FileNode, NfsSession } from "./session.js";

/** MAXSYMLINKS of the kernel. */
const MAX_LINKS = 40;
const MAX_LOOKUPS = 256;
/** NAME_MAX: the kernel asks for no longer name (ENAMETOOLONG). */
const MAX_NAME_BYTES = 255;

/** Where a path leads. */
export type Walk =
  | { readonly end: "found"; readonly node: FileNode }
  /** `missing`: the first path on the way that is not there. */
  | { readonly end: "missing"; readonly missing: string }
  /** More links or lookups than are followed. */
  | { readonly end: "endless" };

/**
 * @param path Relative paths begin at the root, as they do for the kernel's first process; `..` does not leave it.
 * @throws {ProbeEnd} when the server fails.
 */
export async function walk(session: NfsSession, root: FileNode, path: string): Promise<Walk> {
  let trail = [root];
  const names = path.split("/");
  let links = 0;
  for (let lookups = 0; names.length > 0;) {
    const name = names.shift();
    const directory = trail.at(-1) ?? root;
    if (name === undefined || name === "" || name === ".") continue;
    if (name === "..") {
      if (trail.length > 1) trail.pop();
      continue;
    }
    lookups += 1;
    if (lookups > MAX_LOOKUPS) return { end: "endless" };
    const isTooLong = Buffer.byteLength(name) > MAX_NAME_BYTES;
    const node = isTooLong ? undefined : await session.lookup(directory, name);
    if (node === undefined) {
      return { end: "missing", missing: `${directory.path === "/" ? "" : directory.path}/${name}` };
    }
    if (node.attributes.type !== "symbolic link") {
      trail.push(node);
      continue;
    }
    links += 1;
    if (links > MAX_LINKS) return { end: "endless" };
    const target = await session.readLink(node);
    if (target.startsWith("/")) trail = [root];
    names.unshift(...target.split("/"));
  }
  return { end: "found", node: trail.at(-1) ?? root };
}
