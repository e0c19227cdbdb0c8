/** What a guest's work on its NFS root costs with our mount options, against those of the seed's literal command line. */

import { randomBytes } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Bed } from "../lab/bed.js";
import { Creator } from "./creator.js";
import { compared, type Figure } from "./figures.js";

/** How much is measured. */
export interface GuestBench {
  /** Its root's init is replaced. */
  readonly bed: Bed;
  readonly rounds: number;
  readonly say: (text: string) => void;
}

const FILE_MIB = 64;
const FILES = 300;
const READ_SPEEDUP = 3;

/** Times by /proc/uptime, which counts hundredths; each boot begins with empty caches. */
const INIT = `#!/bin/sh
mount -t proc proc /proc
now() { read -r up rest < /proc/uptime; }
since() { read -r end rest < /proc/uptime; echo "bench: $1 $up $end"; }
now; dd if=/data/big of=/dev/null bs=1M 2>/dev/null; since read
now; dd if=/dev/zero of=/data/new bs=1M count=${FILE_MIB} conv=fsync 2>/dev/null; since write
now
mkdir /data/many
i=0; while [ $i -lt ${FILES} ]; do : > /data/many/$i; i=$((i + 1)); done
ls -l /data/many > /dev/null
rm -r /data/many
since metadata
rm /data/new
echo "bench: done"
exec sleep 86400
`;

const works = ["read", "write", "metadata"] as const;
type Times = Record<(typeof works)[number], number>;

export async function benchGuest({ bed, rounds, say }: GuestBench): Promise<Figure[]> {
  await rm(join(bed.directory, "sbin/init"), { force: true });
  await writeFile(join(bed.directory, "sbin/init"), INIT, { mode: 0o755 });
  await mkdir(join(bed.directory, "data"), { recursive: true });
  await writeFile(join(bed.directory, "data/big"), randomBytes(FILE_MIB * 2 ** 20));
  const creator = await Creator.start();
  const seeds: Times[] = [];
  const ours: Times[] = [];
  try {
    for (let round = 1; round <= rounds; round += 1) {
      for (const [samples, name, options] of [
        [seeds, "the seed's options", { nfsOptions: "" }],
        [ours, "ours", {}],
      ] as const) {
        const times = await boot(creator, { ...bed.inputs, ...options });
        samples.push(times);
        say(
          `guest, round ${round}, ${name}: ${works.map((work) => `${work} ${times[work].toFixed(2)} s`).join(", ")}`,
        );
      }
    }
  } finally {
    await creator.close();
  }
  const what = {
    read: `guest reads ${FILE_MIB} MiB`,
    write: `guest writes ${FILE_MIB} MiB`,
    metadata: `guest makes, lists, removes ${FILES} files`,
  };
  return works.map((work) =>
    compared(
      what[work],
      "s",
      { name: "the seed's options", samples: seeds.map((times) => times[work]) },
      ours.map((times) => times[work]),
      work === "read" ? { of: "speedup", limit: READ_SPEEDUP } : undefined,
    ),
  );
}

async function boot(creator: Creator, inputs: object): Promise<Times> {
  const vm = await creator.create({ ...inputs, readiness: { console: "^bench: done", timeoutSeconds: 300 } });
  const console = await readFile(vm.outs.consoleLog, "utf8");
  await creator.remove(vm);
  const timed = works.map((work) => {
    const [, begin, end] = new RegExp(`^bench: ${work} (\\S+) (\\S+)\\r?$`, "m").exec(console) ?? [];
    if (begin === undefined || end === undefined)
      throw new Error(`no time of ${work} in:\n${console.slice(-800)}`);
    return [work, Number(end) - Number(begin)];
  });
  return Object.fromEntries(timed) as Times;
}
