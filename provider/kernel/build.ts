/** Building a kernel that mounts an NFS root by itself, on every back end. */

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

import { z } from "zod";

import { MicroVmError, messageOf, systemCodeOf } from "../errors.js";
import { withFileLock } from "../host/file-lock.js";
import { isAbsent, replaceFile, storageError } from "../host/storage.js";
import { abilitiesOf } from "../preflight/kernel/abilities.js";
import { parseConfiguration } from "../preflight/kernel/configuration.js";
import { inspectKernel, type KernelFacts } from "../preflight/kernel/inspect.js";
import { type Fragment, fragmentText, lostLines, mergeFragments, parseFragment } from "./fragment.js";
import { assertTools, buildTools, runStep, type StepOptions } from "./program.js";
import { findSource } from "./source.js";

/** What is to be built. */
export interface KernelBuildRequest {
  /** Absolute path of a tarball or a folder; absent: the distribution's package. */
  readonly source?: string;
  /** Absolute path of the folder for the result; made where it is missing. */
  readonly output: string;
  /** Absolute paths of fragments that are laid over ours, in this order. */
  readonly fragments: readonly string[];
  /** Compilers that run at a time. */
  readonly jobs: number;
  readonly signal: AbortSignal;
  /** What is going on, a line each. */
  readonly progress: (line: string) => void;
}

/** A kernel that was built. */
export interface BuiltKernel {
  /** Absolute path of the bzImage. */
  readonly image: string;
  /** Absolute path of its configuration, `config-RELEASE` beside it. */
  readonly configuration: string;
  readonly release: string;
  readonly sizeBytes: number;
  /** Whether it was built before, from the same source and configuration by the same compiler. */
  readonly cached: boolean;
}

/** The fragment of this package, beside this module. */
export const OWN_FRAGMENT = join(__dirname, "nfs-root.config");

/** To be raised when the same source and fragment are built in another way. */
const RECIPE_VERSION = 1;

/** How long another build in the same folder is waited for, in seconds. */
const OTHERS_SECONDS = 3600;

/** What is remembered of a build. */
const noteSchema = z.object({ key: z.string(), release: z.string(), imageSha256: z.string() });
type Note = z.infer<typeof noteSchema>;

/**
 * Builds a kernel, or finds it built: `allnoconfig`, our fragment, the person's, then `bzImage`. The output folder holds `bzImage`,
 * `config-RELEASE`, the log of a build that failed, and while it is built some 2 GiB in `.work`. Only whole results appear there.
 *
 * @throws MicroVmError `host-unusable` on another processor or without the tools; `file-unusable` for a source that is none;
 * `invalid-input` for a fragment; `kernel-build` when the build fails; `kernel-unusable` when what comes out would not boot an NFS root.
 */
export async function buildKernel(request: KernelBuildRequest): Promise<BuiltKernel> {
  const { output, signal } = request;
  if (process.arch !== "x64") {
    throw new MicroVmError(
      "host-unusable",
      `kernels are built on x86-64 hosts for x86-64 guests so far, and this host is ${process.arch}. Build it there, or give a kernel of your own`,
    );
  }
  assertTools(buildTools);
  const fragment = await readFragments(request.fragments);
  const work = join(output, ".work");
  try {
    await mkdir(output, { recursive: true });
    const busy = () =>
      new MicroVmError(
        "kernel-build",
        `another build in ${output} has gone on for an hour; end it, then run again`,
      );
    return await withFileLock(output, OTHERS_SECONDS, busy, async (lock) => {
      await rm(work, { recursive: true, force: true }); // of a build that was killed
      try {
        await mkdir(work);
        return await buildLocked(request, fragment, { cwd: work, log: join(work, "step.log"), signal, lock });
      } finally {
        await rm(work, { recursive: true, force: true });
      }
    });
  } catch (error) {
    throw storageError(error, `build a kernel in ${output}`);
  }
}

async function readFragments(
  paths: readonly string[],
): Promise<{ readonly own: Fragment; readonly given: Fragment }> {
  const own = parseFragment(await readFile(OWN_FRAGMENT, "utf8"), OWN_FRAGMENT);
  const given = await Promise.all(
    paths.map(async (path) => {
      const text = await readFile(path, "utf8").catch((error: unknown) => {
        throw new MicroVmError(
          "invalid-input",
          `${path} cannot be read (${systemCodeOf(error) ?? messageOf(error)})`,
          {
            input: "--config",
            cause: error,
          },
        );
      });
      return parseFragment(text, path);
    }),
  );
  return { own, given: mergeFragments(given) };
}

async function buildLocked(
  request: KernelBuildRequest,
  fragments: { readonly own: Fragment; readonly given: Fragment },
  step: StepOptions,
): Promise<BuiltKernel> {
  const { output, progress } = request;
  const source = await findSource(request.source, step);
  const fragment = mergeFragments([fragments.own, fragments.given]);
  const key = sha256(
    JSON.stringify([RECIPE_VERSION, source.identity, fragmentText(fragment), await compilerVersion()]),
  );
  const known = await builtBefore(output, key);
  if (known !== undefined) return known;

  progress(`unpacking ${source.name}`);
  const tree = await source.unpack(step);
  const build = join(step.cwd, "build");
  await mkdir(build);
  await writeFile(join(step.cwd, "fragment"), fragmentText(fragment));
  const make = async (target: string): Promise<string> =>
    await runStep(
      "make",
      [
        "--silent",
        "--no-print-directory",
        `--jobs=${request.jobs}`,
        `--directory=${tree}`,
        `O=${build}`,
        "ARCH=x86_64",
        target,
      ],
      { ...step, env: { ...BUILD_ENVIRONMENT, KCONFIG_ALLCONFIG: join(step.cwd, "fragment") } },
    );
  await make("allnoconfig");
  const configuration = await readFile(join(build, ".config"), "utf8");
  await judgeConfiguration(configuration, fragments, progress);

  progress(
    `compiling with ${request.jobs} ${request.jobs === 1 ? "job" : "jobs"}, about 13 minutes of processor time`,
  );
  try {
    await make("bzImage");
  } catch (error) {
    const log = join(output, "build.log");
    if (error instanceof MicroVmError) {
      await copyFile(step.log, log);
      throw new MicroVmError(error.code, `${error.text}\nAll that it printed is in ${log}`, { cause: error });
    }
    throw error;
  }
  return await keep(join(build, "arch/x86/boot/bzImage"), configuration, key, request, step);
}

/** Neither a date nor the name of the machine goes into the image; nor does what the person's shell says to every make. */
const BUILD_ENVIRONMENT: NodeJS.ProcessEnv = {
  KBUILD_BUILD_TIMESTAMP: "@0",
  KBUILD_BUILD_USER: "pulumi-microvm",
  KBUILD_BUILD_HOST: "pulumi-microvm",
  MAKEFLAGS: "",
  CROSS_COMPILE: "",
};

async function compilerVersion(): Promise<string> {
  const { stdout } = await promisify(execFile)("gcc", ["--version"], {
    env: { ...process.env, LC_ALL: "C" },
  });
  return stdout.split("\n")[0] ?? "";
}

/** Minutes before the image can be judged, its configuration can. */
async function judgeConfiguration(
  text: string,
  { own, given }: { readonly own: Fragment; readonly given: Fragment },
  progress: (line: string) => void,
): Promise<void> {
  const lost = lostLines(given, text);
  if (lost.length > 0) {
    throw new MicroVmError(
      "invalid-input",
      `this kernel does not take ${lost.join(", ")}: it does not know the option, or the option needs others. Add those, or leave it out`,
      { input: "--config" },
    );
  }
  const overridden = new Map([...own].filter(([name]) => !given.has(name)));
  const lostOwn = lostLines(overridden, text);
  if (lostOwn.length > 0) progress(`this kernel does not take ${lostOwn.join(", ")}`);
  await judge({
    path: "the kernel",
    realPath: "/nonexistent/kernel",
    processor: "x86_64",
    format: "bzImage",
    configuration: { found: true, source: ".config", options: parseConfiguration(text) },
  });
}

/** @throws MicroVmError `kernel-unusable` unless the kernel boots an NFS root on each back end by itself. */
async function judge(facts: KernelFacts): Promise<void> {
  const abilities = await abilitiesOf(facts);
  const bad = abilities.filter(({ root, boots }) => root === "nfs" && boots !== "yes");
  if (bad.length === 0) return;
  const reasons = new Set(bad.flatMap((ability) => ability.reasons));
  throw new MicroVmError(
    "kernel-unusable",
    `what this source and configuration give boots no NFS root: ${[...reasons].join("; ")}. Leave these options to the package's own fragment, or give the source of a newer kernel`,
  );
}

/** Puts a finished image in place, after the inspector of previews has looked at it. */
async function keep(
  built: string,
  configuration: string,
  key: string,
  { output }: KernelBuildRequest,
  step: StepOptions,
): Promise<BuiltKernel> {
  // Alone in a folder: there is nothing but the image to go by.
  const alone = join(step.cwd, "alone");
  await mkdir(alone);
  const image = join(alone, "bzImage");
  await copyFile(built, image);
  const facts = await inspectKernel(image);
  if (facts.configuration.found) await judge(facts);
  if (facts.release === undefined) throw new Error(`${built} does not tell its release`);
  const bytes = await readFile(image);
  const { release } = facts;
  const note: Note = { key, release, imageSha256: sha256(bytes) };
  const result = resultOf(output, note, bytes.length, false);
  await writeFile(join(alone, "config"), configuration);
  await rename(join(alone, "config"), result.configuration);
  await rename(image, join(output, "bzImage"));
  await replaceFile(notePath(output), `${JSON.stringify(note)}\n`);
  await rm(join(output, "build.log"), { force: true });
  return result;
}

async function builtBefore(output: string, key: string): Promise<BuiltKernel | undefined> {
  try {
    const note = noteSchema.parse(JSON.parse(await readFile(notePath(output), "utf8")));
    if (note.key !== key) return undefined;
    const bytes = await readFile(join(output, "bzImage"));
    await readFile(join(output, `config-${note.release}`));
    return note.imageSha256 === sha256(bytes) ? resultOf(output, note, bytes.length, true) : undefined;
  } catch (error) {
    // Nothing was built here, or a hand was in it: it is built anew.
    if (isAbsent(error) || error instanceof SyntaxError || error instanceof z.ZodError) return undefined;
    throw error;
  }
}

function notePath(output: string): string {
  return join(output, "kernel-build.json");
}

function resultOf(output: string, { release }: Note, sizeBytes: number, cached: boolean): BuiltKernel {
  const configuration = join(output, `config-${release}`);
  return { image: join(output, "bzImage"), configuration, release, sizeBytes, cached };
}

function sha256(bytes: Buffer | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}
