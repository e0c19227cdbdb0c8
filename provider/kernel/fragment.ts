/** Fragments of a kernel configuration: what is read from them, and how one is laid over another. Pure. */

import { MicroVmError, shown } from "../errors.js";

/** What a fragment asks for, by option name without `CONFIG_`: `y`, `"text"` as it stands there, or `n` for "is not set". */
export type Fragment = ReadonlyMap<string, string>;

/**
 * Reads a fragment: lines `CONFIG_NAME=value` and `# CONFIG_NAME is not set`, comments, empty lines; of several for one option the
 * last one counts.
 *
 * @param path Where it was read from, for the error.
 * @throws MicroVmError `invalid-input`, input `--config`, at a line that is nothing of that.
 */
export function parseFragment(text: string, path: string): Fragment {
  const options = new Map<string, string>();
  for (const [index, line] of text.split("\n").entries()) {
    const assigned = /^CONFIG_(\w+)=(.+?)\s*$/.exec(line);
    const unset = /^# CONFIG_(\w+) is not set\s*$/.exec(line);
    if (assigned !== null) options.set(assigned[1] ?? "", assigned[2] ?? "");
    else if (unset !== null) options.set(unset[1] ?? "", "n");
    else if (!/^\s*(?:#|$)/.test(line)) {
      throw new MicroVmError(
        "invalid-input",
        `expected CONFIG_NAME=value or "# CONFIG_NAME is not set", found ${shown(line)} in line ${index + 1} of ${path}`,
        { input: "--config" },
      );
    }
  }
  return options;
}

/** Lays fragments over each other: of one option, the last fragment that names it counts. */
export function mergeFragments(fragments: readonly Fragment[]): Fragment {
  return new Map(fragments.flatMap((fragment) => [...fragment]));
}

/** The text of a fragment, as kconfig reads it. */
export function fragmentText(fragment: Fragment): string {
  return [...fragment].map(([name, value]) => `${lineOf(name, value)}\n`).join("");
}

/** Lines of a fragment that a configuration does not have: kconfig drops what it does not know or cannot grant, without a word. */
export function lostLines(fragment: Fragment, configuration: string): string[] {
  const got = parseFragment(configuration, ".config");
  return [...fragment]
    .filter(([name, value]) => (got.get(name) ?? "n") !== value)
    .map(([name, value]) => lineOf(name, value));
}

function lineOf(name: string, value: string): string {
  return value === "n" ? `# CONFIG_${name} is not set` : `CONFIG_${name}=${value}`;
}
