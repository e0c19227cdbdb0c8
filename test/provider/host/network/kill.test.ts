import { chmod, mkdir, readdir, writeFile } from "node:fs/promises";
import { execFileSync } from "node:child_process";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { tapNameOf } from "../../../../provider/boot/boot.js";
import { temporaryFolder } from "../folders.js";
import { mayUseNamespaces } from "./namespace.js";
import { Attacher, sampleHost, sampleVm } from "./vms.js";

const where = mayUseNamespaces ? "" : " (needs the right to make network namespaces, ip and nft)";

/** More than any call runs. */
const MOST_STEPS = 12;

/**
 * A folder with an ip and an nft of its own, which kill with SIGKILL who runs them, at a step of all that they are run for: before it is
 * done, or after.
 */
async function deadlyPrograms(step: number, when: "before" | "after") {
  const folder = await temporaryFolder();
  const bin = join(folder, "bin");
  await mkdir(bin);
  for (const name of ["ip", "nft"]) {
    const real = execFileSync("sh", ["-c", `PATH="$PATH:/usr/sbin:/sbin" command -v ${name}`], {
      encoding: "utf8",
    }).trim();
    // mkdir counts, also where two run at once.
    const script = `#!/bin/sh
step=1
until mkdir ${folder}/$step 2> /dev/null; do step=$((step + 1)); done
[ $step = ${step} ] || exec ${real} "$@"
${when === "after" ? `${real} "$@" > /dev/null` : ""}
kill -9 $PPID
`;
    await writeFile(join(bin, name), script);
    await chmod(join(bin, name), 0o755);
  }
  return bin;
}

describe.skipIf(!mayUseNamespaces)(`a provider that is killed${where}`, { timeout: 300_000 }, () => {
  it.each(["before", "after"] as const)(
    "%s any step of attach or detach leaves what the next one finishes or removes",
    async (when) => {
      const { network, state, runtime, attacher } = await sampleHost();
      const before = await network.inventory();
      const vm = await sampleVm(state, "web", {
        guestAccess: "nfs-only",
        portForwards: [{ hostPort: 8080, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }],
      });
      await attacher.attach(vm);
      const whole = (await network.sh("nft list ruleset")).length;
      await attacher.detach(vm);
      const kills: string[] = [];
      for (const act of ["attach", "detach"] as const) {
        for (let step = 1; step <= MOST_STEPS; step++) {
          if (act === "detach") await attacher.attach(vm);
          const bin = await deadlyPrograms(step, when);
          const victim = await Attacher.start(network, runtime, bin);
          const answers = await victim.orders([
            act === "attach" ? { act, vm } : { act, instance: vm.instance },
          ]);
          if (answers.length > 0) break; // it needed fewer steps
          kills.push(`${act} ${step}`);
          if (act === "attach" && step % 2 === 0) {
            // Going on instead: as whole as at once.
            await attacher.attach(vm);
            const { interfaces } = await network.inventory();
            expect(interfaces).toEqual(["lo", "microvm0", tapNameOf(vm.instance)].toSorted());
            expect((await network.sh("nft list ruleset")).length).toBe(whole);
          }
          await attacher.detach(vm);
          expect(await network.inventory(), kills.at(-1)).toEqual(before);
          expect(await leasesLeft(runtime), kills.at(-1)).toEqual([]);
        }
        await attacher.detach(vm);
      }
      expect(kills.length).toBeGreaterThanOrEqual(9);
      expect(kills).not.toContain(`attach ${MOST_STEPS}`);
    },
  );
});

/** Without what nobody holds: leases that were given back, and those that never got to their place, which a later one sweeps away. */
async function leasesLeft(runtime: string): Promise<string[]> {
  const groups = await readdir(join(runtime, "pulumi-microvm", "leases"));
  return groups.filter((name) => !name.startsWith(".retired") && !name.startsWith(".new-"));
}
