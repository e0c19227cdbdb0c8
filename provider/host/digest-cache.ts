/** Digests kept between runs, `STATE/.cache/digests/`: one small file per path. Without it everything is only slower. */

import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";

import { systemCodeOf } from "../errors.js";
import { absolute } from "./paths.js";
import { replaceFile } from "./storage.js";

/**
 * The digest that was written for this path and content key.
 *
 * @returns undefined when there is none, it is of other content, or its file is torn or unreadable.
 */
export async function readCachedDigest(
  stateDirectory: string,
  path: string,
  contentKey: string,
): Promise<string | undefined> {
  try {
    const content: unknown = JSON.parse(await readFile(cacheFile(stateDirectory, path), "utf8"));
    if (typeof content !== "object" || content === null) return undefined;
    const { path: cachedPath, key, sha256 } = content as Record<string, unknown>;
    const right = cachedPath === path && key === contentKey;
    return right && typeof sha256 === "string" && /^[0-9a-f]{64}$/.test(sha256) ? sha256 : undefined;
  } catch (error) {
    // Torn, or not to be read: the file itself is read instead.
    if (error instanceof SyntaxError || systemCodeOf(error) !== undefined) return undefined;
    throw error;
  }
}

/** Keeps a digest, if the state directory is there and can be written. */
export async function writeCachedDigest(
  stateDirectory: string,
  path: string,
  contentKey: string,
  sha256: string,
): Promise<void> {
  try {
    await makeFolder(join(absolute(stateDirectory), ".cache"));
    await makeFolder(join(stateDirectory, ".cache", "digests"));
    const file = cacheFile(stateDirectory, path);
    await replaceFile(file, JSON.stringify({ path, key: contentKey, sha256 }));
  } catch (error) {
    // No state directory yet, full or read-only: the next run reads the file once more.
    if (systemCodeOf(error) === undefined) throw error;
  }
}

async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if (systemCodeOf(error) !== "EEXIST") throw error;
  }
}

function cacheFile(stateDirectory: string, path: string): string {
  const name = createHash("sha256").update(path).digest("hex");
  return join(absolute(stateDirectory), ".cache", "digests", `${name}.json`);
}
