/**
 * SIGKILL at every step of create, update and delete, in a real provider process over a real QEMU and a real NFS root.
 * `npm run test:faults` kills 200 times, `npm test` 20 times. MICROVM_FAULTS: how often; MICROVM_FAULTS_SEED: repeats a run.
 */

import { randomInt } from "node:crypto";

import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";

import { Life } from "./life.js";
import { randomFrom } from "./random.js";
import { Report } from "./report.js";
import type { Step } from "./steps.js";
import { fastestKernel, whyNoWorld, World } from "./world.js";

const KILLS_PER_LIFE = 3;
/** How many lives in a row have a guest, of so many: it takes its time, and only some steps need one. */
const ALL_KINDS = 4;
const kills = Number(process.env["MICROVM_FAULTS"] ?? 20);
const seed = Number(process.env["MICROVM_FAULTS_SEED"] ?? randomInt(1_000_000));
const withGuest = process.env["MICROVM_LAB_NFS_KERNEL"] === undefined ? 1 : kills > 20 ? 3 : 2;
const reason = whyNoWorld();

const lives = Array.from({ length: Math.ceil(kills / KILLS_PER_LIFE) }, (_, life) => life);
const title = `killed at any step (${kills} times, seed ${seed})${reason === undefined ? "" : ` (skipped: ${reason})`}`;

describe.skipIf(reason !== undefined)(title, () => {
  const random = randomFrom(seed);
  const report = new Report(seed);
  const waiting = new Map<string, Step[]>();
  /** Every step of an operation has its turn before any has the next, in random order. */
  const turn = (operation: string, steps: readonly Step[]): Step => {
    const left = waiting.get(operation) ?? [];
    if (left.length === 0) left.push(...steps);
    waiting.set(operation, left);
    const [step] = left.splice(Math.floor(random() * left.length), 1);
    if (step === undefined) throw new Error(`${operation} has no steps`);
    return step;
  };
  let world: World;

  beforeAll(async () => {
    world = await World.open(fastestKernel() ?? "");
    Object.assign(process.env, world.env);
    // The notices of hundreds of operations.
    vi.spyOn(process.stdout, "write").mockImplementation(() => true);
  });
  afterAll(async () => {
    vi.restoreAllMocks();
    process.stderr.write(`${report.summary()}\n${world.found} closed files were found whole\n`);
    await world.close();
  });

  it.each(lives)(
    "create, change and delete are done again by the next up, one VM, nothing left, nothing lost (life %i)",
    async (life) => {
      const hasGuest = life % ALL_KINDS < withGuest;
      const course = { seed, life, hasGuest, random, report, turn };
      expect(await new Life(world, course).live()).toEqual([]);
    },
    600_000,
  );
});
