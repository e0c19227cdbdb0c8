/** What MicroVms cost in the Pulumi engine, against as many resources that do nothing. */

import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Bed } from "../lab/bed.js";
import { Stack } from "../lab/engine.js";
import { compared, type Figure } from "./figures.js";

/** How much is measured. */
export interface EngineBench {
  readonly bed: Bed;
  /** Numbers of resources. */
  readonly counts: readonly number[];
  /** Times that each side is measured, in turn. */
  readonly rounds: number;
  readonly say: (text: string) => void;
}

/** At most so many times the floor, for a preview of the largest number of VMs. */
const PREVIEW_LIMIT = 1.1;
/** Bytes of a MicroVm in the engine's state. */
const STATE_LIMIT = 4096;
const MEMORY_POLL_MILLISECONDS = 250;

const sides = ["no-op", "MicroVm"] as const;
type Side = (typeof sides)[number];

/** One measurement of one side. */
interface Sample {
  /** Seconds. */
  readonly preview: number;
  /** Seconds. */
  readonly up: number;
  /** Mean size of a resource in the engine's state, in bytes of JSON. */
  readonly stateBytes: number;
  /** Largest resident size of the provider's process during up, in MiB. */
  readonly memoryMiB: number;
}

/** Preview and up for each count: once to warm up, then in turn A B A B. */
export async function benchEngine({ bed, counts, rounds, say }: EngineBench): Promise<Figure[]> {
  const stacks = { "no-op": await openStack(bed, "no-op"), MicroVm: await openStack(bed, "MicroVm") };
  try {
    for (const side of sides) await measure(stacks[side], side, bed, 1);
    const figures: Figure[] = [];
    for (const count of counts) {
      const samples: Record<Side, Sample[]> = { "no-op": [], MicroVm: [] };
      for (let round = 1; round <= rounds; round += 1) {
        for (const side of sides) {
          const sample = await measure(stacks[side], side, bed, count);
          samples[side].push(sample);
          const { preview, up } = sample;
          say(`${count} × ${side}, round ${round}: preview ${preview.toFixed(2)} s, up ${up.toFixed(2)} s`);
        }
      }
      figures.push(...figuresOf(count, samples, count === Math.max(...counts)));
    }
    return figures;
  } finally {
    for (const side of sides) await stacks[side].dispose();
  }
}

function figuresOf(count: number, samples: Record<Side, readonly Sample[]>, isLargest: boolean): Figure[] {
  const figure = (name: string, unit: Figure["unit"], of: keyof Sample, goal?: Figure["goal"]): Figure =>
    compared(
      name,
      unit,
      { name: "no-op resources", samples: samples["no-op"].map((sample) => sample[of]) },
      samples.MicroVm.map((sample) => sample[of]),
      goal,
    );
  const timed = [
    figure(
      `preview of ${count}`,
      "s",
      "preview",
      isLargest ? { of: "ratio", limit: PREVIEW_LIMIT } : undefined,
    ),
    figure(`up of ${count}`, "s", "up"),
  ];
  if (!isLargest) return timed;
  return [
    ...timed,
    figure("state of one resource", "bytes", "stateBytes", { of: "ours", limit: STATE_LIMIT }),
    figure(`provider process, up of ${count}`, "MiB", "memoryMiB"),
  ];
}

async function openStack(bed: Bed, side: Side): Promise<Stack> {
  const stack = await Stack.create({
    program: programOf(side, bed, 1),
    env: { NODE_OPTIONS: `--require=${join(__dirname, "still-backend.cjs")}` },
  });
  await writeFile(emptyState(stack), (await stack.mustRun("stack", "export")).stdout);
  return stack;
}

const emptyState = ({ folder }: Stack): string => join(folder, "empty.json");

async function measure(stack: Stack, side: Side, bed: Bed, count: number): Promise<Sample> {
  await stack.writeProgram({ "index.js": programOf(side, bed, count) });
  const preview = await seconds(() => stack.mustRun("preview"));
  const memory = watchMemory(stack);
  const up = await seconds(() => stack.mustRun("up", "--yes", "--skip-preview"));
  const memoryMiB = await memory.stop();
  const { deployment } = await stack.export();
  const made = (deployment.resources ?? []).filter(({ type }) => type === typeOf(side));
  if (made.length !== count) throw new Error(`expected ${count} resources, found ${made.length}`);
  const stateBytes = Buffer.byteLength(JSON.stringify(made)) / count;
  // No VM was made, so none has to be destroyed.
  await stack.mustRun("stack", "import", "--file", emptyState(stack));
  return { preview, up, stateBytes, memoryMiB };
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work();
  return (performance.now() - begun) / 1000;
}

const typeOf = (side: Side): string => (side === "MicroVm" ? "microvm:index:MicroVm" : "bench:index:NoOp");

/** The same arguments for both. */
function programOf(side: Side, { inputs }: Bed, count: number): string {
  const floor = `
const pulumi = require("@pulumi/pulumi");
class Provider extends pulumi.ProviderResource {
  constructor() { super("pulumi-nodejs", "bench", {}); }
}
const provider = new Provider();
const __provider = 'exports.handler=()=>require(${JSON.stringify(join(__dirname, "no-op.cjs"))})';
class Bench extends pulumi.CustomResource {
  constructor(name, args) { super("${typeOf("no-op")}", name, { ...args, __provider }, { provider }); }
}`;
  const ours = 'const { MicroVm: Bench } = require("pulumi-microvm");';
  return `${side === "MicroVm" ? ours : floor}
for (let i = 0; i < ${count}; i += 1) new Bench(\`vm\${i}\`, ${JSON.stringify(inputs)});
`;
}

/** Follows the provider process of a stack, and keeps its VmHWM (proc_pid_status(5)). */
function watchMemory(stack: Stack): { stop(): Promise<number> } {
  let largest = 0;
  let looking = Promise.resolve();
  const look = async (): Promise<void> => {
    for (const pid of await providersOf(stack)) {
      const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
      largest = Math.max(largest, Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024);
    }
  };
  const timer = setInterval(() => {
    looking = looking.then(look);
  }, MEMORY_POLL_MILLISECONDS);
  return {
    async stop() {
      clearInterval(timer);
      await looking;
      return largest;
    },
  };
}

async function providersOf({ folder }: Stack): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    // A process may end while it is looked at.
    const program = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (!program.startsWith("node\0") || !program.includes("/cmd/dynamic-provider")) continue;
    const environment = await readFile(`/proc/${pid}/environ`, "utf8").catch(() => "");
    if (environment.includes(`XDG_STATE_HOME=${folder}/`)) found.push(pid);
  }
  return found;
}
