/**
 * `npm run bench`: what the package costs, as ratios that are taken in one run on one machine. Prints a table, and writes
 * `.lab/bench/figures.json` (with all samples) and `.lab/bench/chart.svg`.
 */

import { mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { chooseAccelerator } from "../../provider/preflight/host.js";
import { makeBed } from "../lab/bed.js";
import { stockKernel } from "../lab/debian-kernel.js";
import setup from "../lab/setup.js";
import { benchBoot } from "./boot.js";
import { chart } from "./chart.js";
import { benchEngine } from "./engine.js";
import type { Figure } from "./figures.js";
import { benchAgentFs, benchGuest } from "./guest-io.js";
import { machineText, table, thisMachine } from "./report.js";
import { benchServer } from "./server.js";
import { benchVmm } from "./vmm.js";

const USAGE = `usage: npm run bench -- [--only engine,boot,vmm,guest,agentfs,server] [--counts 1,100,300] [--rounds 5] [--pairs 10] [--boots 50]
                        [--guest-rounds 3] [--cycles 1000] [--out FOLDER]`;

const say = (text: string): void => console.error(text);

async function bench(): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: "string", default: "engine,boot,vmm,guest,agentfs,server" },
      counts: { type: "string", default: "1,100,300" },
      rounds: { type: "string", default: "5" },
      pairs: { type: "string", default: "10" },
      boots: { type: "string", default: "50" },
      "guest-rounds": { type: "string", default: "3" },
      cycles: { type: "string", default: "1000" },
      out: { type: "string", default: resolve(__dirname, "../../.lab/bench") },
    },
  });
  const [rounds, pairs, boots, guestRounds] = [
    values.rounds,
    values.pairs,
    values.boots,
    values["guest-rounds"],
  ].map(number) as [number, number, number, number];
  const counts = values.counts.split(",").map(number);
  const only = values.only.split(",");

  await setup();
  const kernel = process.env["MICROVM_LAB_NFS_KERNEL"] ?? (await stockKernel());
  const machine = thisMachine();
  const guests = (await chooseAccelerator("auto")) === "kvm" ? "KVM" : "emulated (TCG)";
  const figures: Figure[] = [];
  const text = machineText(machine, guests);
  await mkdir(values.out, { recursive: true });
  for (const [name, run] of [
    ["engine", (bed) => benchEngine({ bed, counts, rounds, say })],
    ["boot", (bed) => benchBoot({ bed, pairs, boots: Math.max(boots, pairs), say })],
    ["vmm", () => benchVmm({ pairs, say })],
    ["guest", (bed) => benchGuest({ bed, rounds: guestRounds, say })],
    ["agentfs", (bed) => benchAgentFs({ bed, rounds: guestRounds, say })],
    ["server", () => benchServer({ posts: pairs, rounds, cycles: number(values.cycles), say })],
  ] as const satisfies readonly (readonly [
    string,
    (bed: Awaited<ReturnType<typeof makeBed>>) => Promise<Figure[]>,
  ])[]) {
    if (!only.includes(name)) continue;
    const bed = await makeBed("complete", kernel);
    try {
      figures.push(...(await run(bed)));
    } finally {
      await bed.close();
    }
    // After each part, so that an interrupt leaves what there is.
    const taken = { takenAt: new Date().toISOString(), machine, guests, figures };
    await writeFile(join(values.out, "figures.json"), `${JSON.stringify(taken, null, 2)}\n`);
    await writeFile(join(values.out, "chart.svg"), chart(figures, text));
  }
  console.log(`${table(figures)}\n\n${text}; load before: ${machine.loadBefore.toFixed(1)}`);
  console.log(`figures.json and chart.svg are in ${values.out}`);
}

function number(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new Error(`expected a whole number from 1, found "${text}"\n${USAGE}`);
  return value;
}

bench().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
