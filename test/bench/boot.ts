/** How long `create` takes, against a bare script that starts the same QEMU; how soon it returns after the guest's line. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Bed } from "../lab/bed.js";
import { type Created, Creator } from "./creator.js";
import { compared, type Figure, percentile } from "./figures.js";

/** How much is measured. */
export interface BootBench {
  readonly bed: Bed;
  /** Boots by create and by the script, in turn. */
  readonly pairs: number;
  /** Boots by create in all. */
  readonly boots: number;
  readonly say: (text: string) => void;
}

/** What a ready guest says, and says last. */
const READY = "guest: ready";
const CREATE_LIMIT = 1.05;
const RETURN_LIMIT_MILLISECONDS = 100;

export async function benchBoot({ bed, pairs, boots, say }: BootBench): Promise<Figure[]> {
  const creator = await Creator.start();
  const folder = await mkdtemp(join(tmpdir(), "bench-script-"));
  const inputs = { ...bed.inputs, memoryMiB: 256, readiness: { console: `^${READY}` } };
  const samples = { create: [] as number[], script: [] as number[], lateness: [] as number[] };
  try {
    for (let boot = 0; samples.lateness.length < boots; boot += 1) {
      if (boot > 2 * boots) throw new Error(`most guests went on after "${READY}": nothing to count from`);
      const vm = await creator.create(inputs);
      const lateness = await latenessOf(vm);
      if (boot === 0) await writeScript(folder, vm);
      await creator.remove(vm);
      // The first of each warms up.
      if (boot > 0 && lateness !== undefined) samples.lateness.push(lateness);
      const back =
        lateness === undefined
          ? "the kernel spoke after the guest"
          : `back ${lateness} ms after the guest's line`;
      say(`boot ${boot}: create ${vm.seconds.toFixed(2)} s, ${back}`);
      if (boot > pairs) continue;
      const seconds = await runScript(folder);
      say(`boot ${boot}: script ${seconds.toFixed(2)} s`);
      if (boot === 0) continue;
      samples.create.push(vm.seconds);
      samples.script.push(seconds);
    }
  } finally {
    await creator.close();
    await rm(folder, { recursive: true, force: true });
  }
  return [
    compared("create to evidence", "s", { name: "bare script", samples: samples.script }, samples.create, {
      of: "ratio",
      limit: CREATE_LIMIT,
    }),
    {
      name: `guest's line to return, p99 of ${boots}`,
      unit: "ms",
      ours: { value: percentile(samples.lateness, 0.99), samples: samples.lateness },
      goal: { of: "ours", limit: RETURN_LIMIT_MILLISECONDS },
    },
  ];
}

/**
 * Milliseconds from the end of the guest's deciding line to the return of create. When the line came, the kernel knows best: it
 * is when the console log last grew, to a tick of its clock (4 ms) early, and no watcher that is late itself can flatter it.
 * Undefined when the guest's kernel has spoken since.
 */
async function latenessOf({ outs, returnedAt }: Created): Promise<number | undefined> {
  const { mtimeMs } = await stat(outs.consoleLog);
  const text = await readFile(outs.consoleLog, "utf8");
  return text.trimEnd().endsWith(READY) ? Math.round(returnedAt - mtimeMs) : undefined;
}

/** The same program with the same arguments, and a wait for the same line; tail looks every 20 ms where inotify does not serve. */
async function writeScript(folder: string, { outs }: Created): Promise<void> {
  const [program = "", ...args] = (await readFile(`/proc/${outs.pid}/cmdline`, "utf8"))
    .split("\0")
    .slice(0, -1);
  const state = dirname(outs.consoleLog);
  const mine = args
    .filter((arg) => arg !== "-S") // nobody is there to say go
    .map((arg) => arg.replaceAll(state, folder).replace(/^unix:[^,]+/, `unix:${folder}/qmp.sock`));
  const kernel = args[args.indexOf("-kernel") + 1] ?? "";
  await copyFile(kernel, kernel.replace(state, folder));
  const initramfs = args[args.indexOf("-initrd") + 1];
  if (args.includes("-initrd") && initramfs !== undefined) {
    await copyFile(initramfs, initramfs.replace(state, folder));
  }
  const log = outs.consoleLog.replace(state, folder);
  const text = `#!/bin/bash
${[program, ...mine].map(quoted).join(" ")} &
qemu=$!
echo $qemu > ${quoted(join(folder, "pid"))}
grep -qm1 '^${READY}' <(exec tail -n +1 -s 0.02 -F --pid=$qemu ${quoted(log)} 2>/dev/null)
`;
  await writeFile(join(folder, "boot.sh"), text);
}

const quoted = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`;

/** Seconds that the script takes; ends its QEMU. */
async function runScript(folder: string): Promise<number> {
  const log = join(folder, "console.log");
  await rm(log, { force: true });
  const begun = performance.now();
  const script = spawn("bash", [join(folder, "boot.sh")], { stdio: ["ignore", "ignore", "inherit"] });
  const [code] = (await once(script, "exit")) as [number | null];
  const seconds = (performance.now() - begun) / 1000;
  process.kill(Number(await readFile(join(folder, "pid"), "utf8")), "SIGKILL");
  if (code !== 0) throw new Error(`the script ended with ${code}:\n${await readFile(log, "utf8")}`);
  return seconds;
}
