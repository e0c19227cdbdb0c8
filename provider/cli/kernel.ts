/** `microvm kernel`: what a kernel image can boot, and one that boots an NFS root. */

import { availableParallelism, homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";

import { MicroVmError, shown } from "../errors.js";
import { buildKernel } from "../kernel/build.js";
import { type Ability, abilitiesOf, nfsRootOf } from "../preflight/kernel/abilities.js";
import { inspectKernel, type KernelFacts } from "../preflight/kernel/inspect.js";
import type { CommandContext } from "./microvm.js";
import { tableLines } from "./table.js";

/**
 * Prints what a kernel image can boot, as a table or as JSON.
 *
 * @param file Path of the image.
 * @returns 0 when it boots an NFS root on some back end, by itself or with an initramfs that can be made here; else 1.
 * @throws MicroVmError `file-unusable` when there is no file, or it is no kernel.
 */
export async function checkKernel({ print }: CommandContext, file: string, json: boolean): Promise<number> {
  const facts = await inspectKernel(resolve(file));
  const abilities = await abilitiesOf(facts);
  const nfsRoot = nfsRootOf(abilities);
  if (json) {
    const { path, release, processor, format, configuration } = facts;
    const from = configuration.found ? configuration.source : undefined;
    print(
      JSON.stringify(
        { path, release, processor, format, configuration: from, nfsRoot, abilities },
        undefined,
        2,
      ),
    );
  } else {
    reportLines(facts, abilities).forEach(print);
  }
  return nfsRoot === "yes" || nfsRoot === "initramfs" ? 0 : 1;
}

const ROOTS = {
  nfs: "NFS",
  disk: "disk",
  overlay: "disk, with a stateful one",
} as const satisfies Record<Ability["root"], string>;

const ADDRESSES = { static: "static", dhcp: "dhcp", any: "-" } as const satisfies Record<
  Ability["address"],
  string
>;

const BOOTS = {
  yes: "yes",
  initramfs: "with an initramfs",
  no: "no",
  unknown: "not known",
} as const satisfies Record<Ability["boots"], string>;

const CONCLUSIONS = {
  yes: "An NFS root: it boots one by itself.",
  initramfs:
    "An NFS root: not by itself, but with an initramfs made from its modules, which MicroVm makes where none is given.",
  no: "An NFS root: it cannot boot one. Use a kernel with the options above built in; `microvm kernel build` makes one.",
  unknown:
    "An NFS root: not known whether it can boot one. Put the kernel's config-RELEASE beside the image, or build it with CONFIG_IKCONFIG.",
} as const satisfies Record<Ability["boots"], string>;

function reportLines(facts: KernelFacts, abilities: readonly Ability[]): string[] {
  const { configuration, format, processor, release = "of unknown release" } = facts;
  const source = configuration.found ? configuration.source : "not found";
  const rows = abilities.map(({ backend, machine, root, address, boots }) => [
    machine === undefined ? backend : `${backend} (${machine})`,
    ROOTS[root],
    ADDRESSES[address],
    BOOTS[boots],
  ]);
  return [
    `${facts.path}: Linux ${release}, ${processor}, ${format}; its configuration: ${source}`,
    "",
    ...tableLines([["BACK END", "ROOT", "ADDRESS", "BOOTS"], ...rows]),
    "",
    ...groupedReasons(abilities),
    CONCLUSIONS[nfsRootOf(abilities)],
  ];
}

/** Each reason once, under the boots that it concerns: most concern many. */
function groupedReasons(abilities: readonly Ability[]): string[] {
  const group = (textsOf: (ability: Ability) => readonly string[]): string[] => [
    ...new Set(abilities.flatMap(textsOf)),
  ];
  const sections = [
    { title: "Why not:", texts: group(({ boots, reasons }) => (boots === "no" ? reasons : [])) },
    {
      title: "Why not by itself:",
      texts: group(({ boots, reasons }) => (boots === "initramfs" ? reasons : [])),
    },
    { title: "Not known:", texts: group(({ boots, reasons }) => (boots === "unknown" ? reasons : [])) },
    { title: "To know:", texts: group(({ remarks }) => remarks) },
  ];
  return sections.flatMap(({ title, texts }) =>
    texts.length === 0 ? [] : [title, ...texts.map((text) => `  ${text}`), ""],
  );
}

/** What is to be built; paths as the person gave them. */
export interface BuildOptions {
  readonly source?: string;
  readonly output?: string;
  readonly config?: readonly string[];
  readonly jobs?: string;
  readonly json: boolean;
}

/** What a shell makes of SIGINT: 128 and its number (POSIX, "Exit Status for Commands"). */
const INTERRUPTED = 130;

/**
 * Builds a kernel, or finds it built, and prints its path, or as JSON all that is known of it; what goes on goes to stderr.
 *
 * @returns 0; 130 when it was interrupted, after all that was begun is ended and removed.
 * @throws MicroVmError as {@link buildKernel}.
 */
export async function makeKernel({ print }: CommandContext, options: BuildOptions): Promise<number> {
  const { source, output = defaultOutput(), config = [], json } = options;
  const interrupt = new AbortController();
  const onSignal = (): void => interrupt.abort();
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  try {
    const built = await buildKernel({
      source: source === undefined ? undefined : resolve(source),
      output: resolve(output),
      fragments: config.map((path) => resolve(path)),
      jobs: jobsOf(options.jobs),
      signal: interrupt.signal,
      progress: (line) => process.stderr.write(`microvm: ${line}\n`),
    });
    const { image, release, sizeBytes, cached } = built;
    const size = (sizeBytes / 2 ** 20).toFixed(1);
    const how = cached ? "was built before from the same source" : "is built";
    process.stderr.write(`microvm: Linux ${release}, ${size} MiB, ${how}\n`);
    print(json ? JSON.stringify(built, undefined, 2) : image);
    return 0;
  } catch (error) {
    if (interrupt.signal.aborted) return INTERRUPTED;
    throw error;
  } finally {
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
  }
}

/** `$XDG_CACHE_HOME/pulumi-microvm/kernel`, else below `~/.cache` (XDG Base Directory Specification). */
function defaultOutput(env: NodeJS.ProcessEnv = process.env): string {
  const base = env["XDG_CACHE_HOME"];
  const cache = base !== undefined && isAbsolute(base) ? base : join(env["HOME"] || homedir(), ".cache");
  return join(cache, "pulumi-microvm", "kernel");
}

function jobsOf(given: string | undefined): number {
  if (given === undefined) return availableParallelism();
  if (/^[1-9]\d{0,3}$/.test(given)) return Number(given);
  throw new MicroVmError("invalid-input", `expected a number of compilers from 1 on, found ${shown(given)}`, {
    input: "--jobs",
  });
}
