/** The source of a kernel: the distribution's package, a tarball, or a folder. */

import { createHash } from "node:crypto";
import { createReadStream, lstatSync, readdirSync } from "node:fs";
import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join, relative } from "node:path";
import { pipeline } from "node:stream/promises";

import { MicroVmError, messageOf, systemCodeOf } from "../errors.js";
import { leadsNowhere } from "../host/storage.js";
import { assertTools, runStep, type StepOptions } from "./program.js";

/** A source that was found, and not yet unpacked. */
export interface KernelSource {
  /** The same for the same content: what a build is remembered by. */
  readonly identity: string;
  /** In words: `linux-source-6.1 6.1.192-1`. */
  readonly name: string;
  /** Makes the tree, below `StepOptions.cwd` unless it is a folder of the person's. Returns its absolute path. */
  readonly unpack: (step: StepOptions) => Promise<string>;
}

/**
 * Finds the source to build from.
 *
 * @param given Absolute path of a tarball or a folder; absent: Debian's or Ubuntu's package linux-source.
 * @throws MicroVmError `file-unusable`, input `--source`, for what is no Linux source; `host-unusable` where there is no such package.
 */
export async function findSource(given: string | undefined, step: StepOptions): Promise<KernelSource> {
  if (given === undefined) return await packagedSource(step);
  const stats = await stat(given).catch((error: unknown) => {
    throw unusable(given, `cannot be read (${systemCodeOf(error) ?? messageOf(error)})`, error);
  });
  return stats.isDirectory() ? await folderSource(given) : await tarballSource(given);
}

async function tarballSource(path: string): Promise<KernelSource> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return {
    identity: `sha256:${hash.digest("hex")}`,
    name: path,
    unpack: async (step) => {
      try {
        return await unpackTarball(path, step);
      } catch (error) {
        if (!(error instanceof MicroVmError)) throw error;
        throw unusable(path, `cannot be unpacked: ${error.text}`, error);
      }
    },
  };
}

async function unpackTarball(path: string, step: StepOptions): Promise<string> {
  const tree = join(step.cwd, "linux");
  await mkdir(tree);
  await runStep(
    "tar",
    ["--extract", "--strip-components=1", "--no-same-owner", `--directory=${tree}`, `--file=${path}`],
    step,
  );
  await assertLinux(tree, path);
  return tree;
}

async function folderSource(path: string): Promise<KernelSource> {
  await assertLinux(path, path);
  // The kernel's own Makefile refuses to build beside a tree in which something was built (outputmakefile).
  const left = await firstThere(path, [".config", "include/config", "arch/x86/include/generated"]);
  if (left !== undefined) {
    throw unusable(
      path,
      `was built in before (${left} is there). Run make mrproper in it, or give a clean tree`,
    );
  }
  return { identity: `tree:${treeDigest(path)}`, name: path, unpack: async () => path };
}

/** Files that every Linux source has, and a build for x86 reads. */
const MARKS = ["Makefile", "Kconfig", "arch/x86/Makefile", "init/main.c"];

async function assertLinux(tree: string, source: string): Promise<void> {
  for (const mark of MARKS) {
    const found = await firstThere(tree, [mark]);
    if (found === undefined) {
      throw unusable(
        source,
        `is no whole Linux source: it has no ${mark}. Give a tarball or a folder as kernel.org has them`,
      );
    }
  }
  const makefile = await readFile(join(tree, "Makefile"), "utf8");
  if (!/^VERSION = \d+$/m.test(makefile)) {
    throw unusable(
      source,
      "is no Linux source: its Makefile names no VERSION. Give one as kernel.org has them",
    );
  }
}

async function firstThere(folder: string, names: readonly string[]): Promise<string | undefined> {
  for (const name of names) {
    try {
      await stat(join(folder, name));
      return name;
    } catch (error) {
      if (!leadsNowhere(error)) throw error;
    }
  }
  return undefined;
}

/** Of names, sizes and times: reading a gigabyte would take longer than it is worth. */
function treeDigest(folder: string): string {
  const hash = createHash("sha256");
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !relative(folder, path).startsWith(".git/"))
    .toSorted();
  for (const path of paths) {
    const { size, mtimeNs } = lstatSync(path, { bigint: true });
    hash.update(`${relative(folder, path)}\0${size}\0${mtimeNs}\n`);
  }
  return hash.digest("hex");
}

const PACKAGE = "linux-source";
const OTHERWISE = "or give a tarball or a folder from kernel.org with --source";

/** The installed package of the newest version; else the one that apt would install, which is downloaded and not installed. */
async function packagedSource(step: StepOptions): Promise<KernelSource> {
  assertTools([
    { name: "dpkg-deb", package: "dpkg" },
    { name: "dpkg-query", package: "dpkg" },
    { name: "apt-get", package: "apt" },
    { name: "apt-cache", package: "apt" },
  ]);
  const installed = await installedPackage(step);
  if (installed !== undefined) {
    const { name, version } = installed;
    const unpack = async (): Promise<string> => {
      const files = await runStep("dpkg-query", ["--listfiles", name], step);
      const tarball = files.split("\n").find(isTarball);
      if (tarball === undefined) {
        throw new MicroVmError(
          "host-unusable",
          `the package ${name} holds no source. Install it again, ${OTHERWISE}`,
        );
      }
      return await unpackTarball(tarball, step);
    };
    return { identity: `${name} ${version}`, name: `${name} ${version}, installed`, unpack };
  }
  const depends = await printedOrNothing("apt-cache", ["depends", PACKAGE], step);
  const name = /^ *Depends: *(linux-source-[0-9.]+)$/m.exec(depends)?.[1];
  const shown =
    name === undefined ? "" : await runStep("apt-cache", ["show", "--no-all-versions", name], step);
  const version = /^Version: (\S+)$/m.exec(shown)?.[1];
  if (name === undefined || version === undefined) {
    throw new MicroVmError(
      "host-unusable",
      `apt knows no package ${PACKAGE}. Run apt-get update, install ${PACKAGE}, ${OTHERWISE}`,
    );
  }
  return {
    identity: `${name} ${version}`,
    name: `${name} ${version}, from apt`,
    unpack: async (later) => await downloadPackage(name, version, later),
  };
}

async function installedPackage(
  step: StepOptions,
): Promise<{ readonly name: string; readonly version: string } | undefined> {
  const format = "${db:Status-Status} ${Package} ${Version}\\n";
  const listed = await printedOrNothing(
    "dpkg-query",
    ["--show", `--showformat=${format}`, "linux-source-*"],
    step,
  );
  const found = [...listed.matchAll(/^installed (linux-source-[0-9.]+) (\S+)$/gm)]
    .map(([, name = "", version = ""]) => ({ name, version }))
    .toSorted((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
  return found.at(-1);
}

/** What a program prints; nothing where it fails, as these two do when they know no such package. */
async function printedOrNothing(
  program: string,
  args: readonly string[],
  step: StepOptions,
): Promise<string> {
  try {
    return await runStep(program, args, step);
  } catch (error) {
    if (error instanceof MicroVmError) return "";
    throw error;
  }
}

async function downloadPackage(name: string, version: string, step: StepOptions): Promise<string> {
  try {
    await runStep("apt-get", ["download", "-q", `${name}=${version}`], step);
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    throw new MicroVmError(
      "host-unusable",
      `the package ${name} cannot be downloaded: ${error.text}\nInstall it (apt-get update; apt-get install ${name}), ${OTHERWISE}`,
      { cause: error },
    );
  }
  const archive = (await readdir(step.cwd)).find((file) => file.endsWith(".deb"));
  if (archive === undefined) throw new Error(`apt-get download left no file in ${step.cwd}`);
  const folder = join(step.cwd, "package");
  await runStep("dpkg-deb", ["--extract", archive, folder], step);
  await rm(join(step.cwd, archive));
  const files = await readdir(folder, { recursive: true });
  const tarball = files.map((file) => join(folder, file)).find(isTarball);
  if (tarball === undefined)
    throw new MicroVmError("host-unusable", `the package ${name} holds no source, ${OTHERWISE}`);
  const tree = await unpackTarball(tarball, step);
  await rm(folder, { recursive: true });
  return tree;
}

function isTarball(path: string): boolean {
  return /\/linux-source-[^/]*\.tar(?:\.\w+)?$/.test(path);
}

function unusable(path: string, found: string, cause?: unknown): MicroVmError {
  return new MicroVmError("file-unusable", `${path} ${found}`, { input: "--source", cause });
}
