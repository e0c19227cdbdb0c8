/** The configuration of a kernel: where it is found, and how its text is read. */

import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { messageOf, systemCodeOf } from "../../errors.js";
import { leadsNowhere } from "../../host/storage.js";
import { CannotUnpack } from "./unpack.js";

/** Values of options by name without `CONFIG_`: `y`, `m`, or a text. An option that is not set is absent. */
export type KernelOptions = ReadonlyMap<string, string>;

/** The configuration of a kernel, or why there is none. */
export type KernelConfiguration =
  | {
      readonly found: true;
      /** `image`, or the absolute path of the file it was read from. */
      readonly source: string;
      readonly options: KernelOptions;
    }
  | {
      readonly found: false;
      /** Where it was looked for, and what was in the way. */ readonly reason: string;
    };

/** Reads the text of a kernel configuration (`CONFIG_NFS_FS=m`); whatever is not an assignment is left out. */
export function parseConfiguration(text: string): KernelOptions {
  const options = new Map<string, string>();
  for (const match of text.matchAll(/^CONFIG_(\w+)=(?:"(.*)"|(.*))$/gm)) {
    const [, name = "", quoted, plain = ""] = match;
    if (plain !== "n") options.set(name, quoted ?? plain);
  }
  return options;
}

/**
 * Finds the configuration that CONFIG_IKCONFIG puts into an unpacked kernel: a gzip stream between two marks
 * (kernel/configs.c in the kernel).
 *
 * @throws CannotUnpack when what is between the marks is damaged.
 */
export function embeddedConfiguration(unpacked: Buffer): KernelOptions | undefined {
  const start = unpacked.indexOf("IKCFG_ST\x1f\x8b", 0, "latin1");
  if (start === -1) return undefined;
  const end = unpacked.indexOf("IKCFG_ED", start, "latin1");
  if (end === -1) return undefined;
  try {
    return parseConfiguration(gunzipSync(unpacked.subarray(start + 8, end)).toString());
  } catch (error) {
    throw new CannotUnpack(`the configuration in it is damaged (${messageOf(error)})`, { cause: error });
  }
}

/**
 * Files that hold the configuration of exactly this release, most trusted first.
 *
 * @param imagePath Real path of the image.
 */
export function configurationFilesOf(imagePath: string, release: string): string[] {
  const folder = join(imagePath, "..");
  const beside = join(folder, `config-${release}`);
  // Fedora keeps the image and its configuration in the folder of its modules.
  const ofModules = basename(folder) === release ? [join(folder, "config")] : [];
  return [beside, ...ofModules, `/boot/config-${release}`, `/lib/modules/${release}/config`];
}

/**
 * Reads the first of some configuration files that is there.
 *
 * @returns The configuration, or for each file that exists and cannot be used, why.
 */
export async function readConfigurationFile(
  paths: readonly string[],
): Promise<{ readonly configuration?: KernelConfiguration; readonly problems: readonly string[] }> {
  const problems: string[] = [];
  for (const path of paths) {
    const options = await readOptions(path, problems);
    if (options === undefined) continue;
    if (options.size > 0) return { configuration: { found: true, source: path, options }, problems };
    problems.push(`${path} holds no CONFIG_ lines`);
  }
  return { problems };
}

async function readOptions(path: string, problems: string[]): Promise<KernelOptions | undefined> {
  try {
    return parseConfiguration(await readFile(path, "utf8"));
  } catch (error) {
    const code = systemCodeOf(error);
    if (code === undefined) throw error;
    // A file that is not there is the usual case; one that is there but unreadable is worth telling.
    if (!leadsNowhere(error)) problems.push(`${path} cannot be read (${code})`);
    return undefined;
  }
}
