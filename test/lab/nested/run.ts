/**
 * `npm run lab:nested`: Cloud Hypervisor with real guests, in a machine of its own in which KVM works.
 *
 *   npm run lab:nested                                the life of VMs, by the provider's own functions (story.ts)
 *   npm run lab:nested -- --story export              VMs on an NfsExport, and on an AgentFs, at the address of their bridge (export.ts)
 *   npm run lab:nested -- --story bare                a guest with nothing of the package between (bare.ts)
 *   npm run lab:nested -- --story user-network        a VM on the user network of passt, which is on PATH (user-network.ts)
 *   npm run lab:nested -- SCRIPT [FILE…]              another script instead, run as /lab/SCRIPT; FILEs are put beside it
 *   … --minutes 60                                    time bound
 *
 * Environment: CLOUD_HYPERVISOR (the program; else `cloud-hypervisor` on PATH), MICROVM_LAB_NFS_KERNEL (the guest's kernel; else
 * the one that `CI=1 npm test` has left in the lab's cache, if it is not too old, else the stock one, which takes longer),
 * MICROVM_LAB_KERNEL (the machine's own kernel), AGENTFS (the program; else `agentfs` on PATH: the story export does without, and says so).
 * What the machine leaves in its /out is in .lab/nested/out afterwards.
 */

import { rmSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { findProgram } from "../../../provider/host/program.js";
import { bootNeeds } from "../../../provider/preflight/kernel/boot-needs.js";
import { inspectKernel } from "../../../provider/preflight/kernel/inspect.js";
import { stockKernel } from "../debian-kernel.js";
import setup from "../setup.js";
import { runMachine } from "./machine.js";
import { makeRoot } from "./root.js";

const OUT = resolve(__dirname, "../../../.lab/nested/out");

async function run(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { minutes: { type: "string", default: "40" }, story: { type: "string", default: "story" } },
  });
  const begun = Date.now();
  const say = (line: string): void =>
    console.log(`${((Date.now() - begun) / 1000).toFixed(1).padStart(7)}  ${line}`);

  const cloudHypervisor = findProgram(
    process.env["CLOUD_HYPERVISOR"] || "cloud-hypervisor",
    "build or download it, and name it: CLOUD_HYPERVISOR=/path/to/cloud-hypervisor npm run lab:nested",
  );
  const given = process.env["MICROVM_LAB_NFS_KERNEL"] || undefined;
  await setup();
  const kernel = await stockKernel();
  const guestKernel = given ?? (await fitKernel(process.env["MICROVM_LAB_NFS_KERNEL"]));
  say(`machine's kernel    ${kernel}`);
  say(`guest's kernel      ${guestKernel ?? "the same, with an initramfs of ours"}`);
  say(`Cloud Hypervisor    ${cloudHypervisor}`);

  const script = positionals[0];
  const work = await mkdtemp(join(tmpdir(), "lab-nested-"));
  // QEMU ends with this process; the disk would stay.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(signal, () => {
      rmSync(work, { recursive: true, force: true });
      process.exit(1);
    });
  }
  const [root, folder] = [join(work, "root"), join(work, "machine")];
  try {
    await mkdir(root);
    await mkdir(folder);
    await makeRoot(root, {
      kernel,
      cloudHypervisor,
      files: {
        ...Object.fromEntries(positionals.map((path) => [basename(path), resolve(path)])),
        ...(guestKernel === undefined ? {} : { kernel: guestKernel }),
      },
      command:
        script === undefined
          ? `exec node /package/test/lab/nested/${values.story}.js`
          : `exec ./${basename(script)}`,
    });
    say("the machine's root is made");
    await mkdir(OUT, { recursive: true });
    const end = await runMachine({
      kernel,
      root,
      folder,
      timeoutSeconds: Number(values.minutes) * 60,
      onLine: say,
      out: OUT,
    });
    say(end.kind === "done" ? `ended with exit code ${end.exitCode}` : `the machine ${END[end.kind]}`);
    say(`what it left: ${OUT}`);
    return end.kind === "done" ? end.exitCode : 1;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** The lab's own kernel, unless it was built before it could use what a running guest is given. */
async function fitKernel(path: string | undefined): Promise<string | undefined> {
  if (!path) return undefined;
  const verdict = bootNeeds(await inspectKernel(path), {
    root: "nfs",
    dhcp: false,
    machine: "cloud-hypervisor",
    disks: true,
    overlay: false,
    ownInitramfs: false,
    size: { severalVcpus: true, moreVcpus: true, moreMemory: true },
  });
  return verdict.kind === "boots" && verdict.remarks.length === 0 ? path : undefined;
}

const END = { died: "died before its script had ended", timeout: "ran out of time" };

run().then(
  (exitCode) => (process.exitCode = exitCode),
  (error: unknown) => {
    console.error(`lab:nested: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  },
);
