/** A source tree whose Makefile does in a moment what Linux' does in minutes: it takes the same targets and variables. */

import { execFileSync } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

import { bzImage, unpackedKernel } from "../preflight/kernel/images.js";
import { OWN_FRAGMENT } from "../../../provider/kernel/build.js";

/** What a scripted source does other than Linux. */
export interface ScriptedSource {
  /** Options (without CONFIG_) that it does not know, and leaves out of its configuration without a word. */
  readonly unknown?: readonly string[];
  /** Shell commands before the image is made: `exit 1` for a source that does not compile. */
  readonly compile?: string;
  /** Options of ours that the image lacks although its configuration has them. */
  readonly lacking?: readonly string[];
}

/** The release that its images have. */
export const RELEASE = "6.1.0-scripted";

/** Writes a tree into a folder that is made. Each compilation adds a line to the file `compiled` beside the folder. */
export async function writeSource(folder: string, source: ScriptedSource = {}): Promise<void> {
  const { unknown = [], compile = ":", lacking = [] } = source;
  for (const path of ["arch/x86", "init"]) await mkdir(join(folder, path), { recursive: true });
  for (const path of ["Kconfig", "arch/x86/Makefile", "init/main.c"]) await writeFile(join(folder, path), "");
  const options = (await readFile(OWN_FRAGMENT, "utf8"))
    .split("\n")
    .filter((line) => !lacking.some((name) => line === `CONFIG_${name}=y`));
  const content = gzipSync(unpackedKernel(RELEASE, options.join("\n")));
  await writeFile(join(folder, "image"), bzImage(RELEASE, content));
  const drop = ["x^", ...unknown.map((name) => `^CONFIG_${name}=`)]
    .map((pattern) => `-e '${pattern}'`)
    .join(" ");
  const makefile = [
    "VERSION = 6",
    "allnoconfig:",
    `\t@grep -v ${drop} "$$KCONFIG_ALLCONFIG" >$(O)/.config`,
    "bzImage:",
    `\t@echo compiled >>${folder}.compiled`,
    `\t@${compile}`,
    "\t@mkdir -p $(O)/arch/x86/boot && cp image $(O)/arch/x86/boot/bzImage",
    "",
  ];
  await writeFile(join(folder, "Makefile"), makefile.join("\n"));
}

/** Packs a tree as kernel.org does, with one folder around it. */
export function packSource(folder: string, tarball: string): void {
  execFileSync("tar", ["--create", "--xz", `--file=${tarball}`, `--directory=${folder}/..`, "linux"]);
}

/** How often a source was compiled. */
export async function compilations(folder: string): Promise<number> {
  const text = await readFile(`${folder}.compiled`, "utf8").catch(() => "");
  return text.split("\n").length - 1;
}
