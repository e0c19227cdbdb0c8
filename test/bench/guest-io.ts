/** What a guest's work on its NFS root costs with our mount options, against those of the seed's literal command line. */

import { randomBytes } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { startAgentFs } from "../lab/agentfs.js";
import type { Bed } from "../lab/bed.js";
import { whyNoAgentFs } from "../lab/programs.js";
import { mustRun } from "../lab/run-process.js";
import { Creator } from "./creator.js";
import { compared, type Figure } from "./figures.js";

/** How much is measured. */
export interface GuestBench {
  /** Its root's init is replaced. */
  readonly bed: Bed;
  readonly rounds: number;
  readonly say: (text: string) => void;
}

/** What is served, and by whom. */
interface Root {
  /** Follows the names of the figures. */
  readonly server: string;
  readonly fileMiB: number;
  readonly readSpeedup?: number;
  /** Runs something with the inputs of a VM on this root. */
  use<T>(run: (inputs: object) => Promise<T>): Promise<T>;
}

const FILES = 300;
/** In the archive, 4 KiB each. */
const ARCHIVED = 200;

/** Times by /proc/uptime, which counts hundredths; each boot begins with empty caches. */
const init = (fileMiB: number) => `#!/bin/sh
mount -t proc proc /proc
now() { read -r up rest < /proc/uptime; }
since() { read -r end rest < /proc/uptime; echo "bench: $1 $up $end"; }
now; dd if=/data/big of=/dev/null bs=1M 2>/dev/null; since read
now; dd if=/dev/zero of=/data/new bs=1M count=${fileMiB} conv=fsync 2>/dev/null; since write
now
mkdir /data/many
i=0; while [ $i -lt ${FILES} ]; do : > /data/many/$i; i=$((i + 1)); done
ls -l /data/many > /dev/null
rm -r /data/many
since metadata
now; tar -xf /data/archive.tar -C /data && sync; since untar
rm -r /data/new /data/archive
echo "bench: done"
exec sleep 86400
`;

const works = ["read", "write", "metadata", "untar"] as const;
type Times = Record<(typeof works)[number], number>;

/** On a directory that ganesha serves. */
export async function benchGuest(options: GuestBench): Promise<Figure[]> {
  const { inputs } = options.bed;
  return await benchRoot(options, {
    server: "",
    fileMiB: 64,
    readSpeedup: 3,
    use: async (run) => await run(inputs),
  });
}

/** On an AgentFS database over the same directory, a new one for each boot; nothing where there is no AgentFS. */
export async function benchAgentFs(options: GuestBench): Promise<Figure[]> {
  const reason = whyNoAgentFs();
  if (reason !== undefined) {
    options.say(`agentfs: left out, ${reason}`);
    return [];
  }
  const { directory, inputs } = options.bed;
  return await benchRoot(options, {
    server: " on AgentFS",
    fileMiB: 16,
    use: async (run) => {
      const server = await startAgentFs(directory);
      try {
        return await run({ ...inputs, nfsPort: server.port, nfsMountPort: server.port, nfsPath: "/" });
      } finally {
        await server.stop();
      }
    },
  });
}

async function benchRoot({ bed, rounds, say }: GuestBench, root: Root): Promise<Figure[]> {
  const { server, fileMiB, readSpeedup } = root;
  await fill(bed.directory, fileMiB);
  const creator = await Creator.start();
  const seeds: Times[] = [];
  const ours: Times[] = [];
  try {
    for (let round = 1; round <= rounds; round += 1) {
      for (const [samples, name, options] of [
        [seeds, "the seed's options", { nfsOptions: "" }],
        [ours, "ours", {}],
      ] as const) {
        const times = await root.use((inputs) => boot(creator, { ...inputs, ...options }));
        samples.push(times);
        const shown = works.map((work) => `${work} ${times[work].toFixed(2)} s`).join(", ");
        say(`guest${server}, round ${round}, ${name}: ${shown}`);
      }
    }
  } finally {
    await creator.close();
  }
  const what = {
    read: `guest reads ${fileMiB} MiB`,
    write: `guest writes ${fileMiB} MiB`,
    metadata: `guest makes, lists, removes ${FILES} files`,
    untar: `guest unpacks ${ARCHIVED} files`,
  };
  return works.map((work) =>
    compared(
      what[work] + server,
      "s",
      { name: "the seed's options", samples: seeds.map((times) => times[work]) },
      ours.map((times) => times[work]),
      work === "read" && readSpeedup !== undefined ? { of: "speedup", limit: readSpeedup } : undefined,
    ),
  );
}

/** What the guest works on. */
async function fill(directory: string, fileMiB: number): Promise<void> {
  const data = join(directory, "data");
  const archive = join(data, "archive");
  await rm(join(directory, "sbin/init"), { force: true });
  await writeFile(join(directory, "sbin/init"), init(fileMiB), { mode: 0o755 });
  for (let file = 0; file < ARCHIVED; file++) {
    const folder = join(archive, String(file % 10));
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, String(file)), randomBytes(4096));
  }
  await mustRun("tar", ["-cf", `${archive}.tar`, "-C", data, "archive"]);
  await rm(archive, { recursive: true });
  await writeFile(join(data, "big"), randomBytes(fileMiB * 2 ** 20));
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
