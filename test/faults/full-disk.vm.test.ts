import { execFileSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { mkdir, stat, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it, onTestFinished } from "vitest";

import { systemCodeOf } from "../../provider/errors.js";
import { vmPaths } from "../../provider/host/paths.js";
import { isInNamespace, runInNamespace, whyNoNamespace } from "../lab/namespace.js";
import { cloudHypervisorBinary } from "../lab/programs.js";
import { LocalLab, untilPhase, type VmChoice } from "../provider/backends/local-lab.js";
import { mayMount, mountTmpfs } from "../provider/host/folders.js";
import { backEnd } from "./back-end-process.js";

const noBinary = "cloud-hypervisor is not on PATH, and CLOUD_HYPERVISOR is not set";
const noMount = mayMount ? undefined : "needs root, for a small file system";
const reason = cloudHypervisorBinary() === undefined ? noBinary : (whyNoNamespace() ?? noMount);
const title = "a state directory that runs full, on cloud-hypervisor";

if (reason !== undefined) describe(title, () => it.skip(`skipped: ${reason}`, () => undefined));
else if (isInNamespace()) faults();
else it(`${title}, in a network namespace of its own`, () => expect(runInNamespace(__filename)).toBe(0));

const MIB = 1_048_576;

const choice: VmChoice = {
  maxVcpus: 4,
  maxMemoryMiB: 1024,
  statefulDiskMiB: 32,
  portForwards: [{ hostPort: 18_080, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }],
};

/** A lab with a state directory of 8 MiB, of which so much is left. */
async function smallLab(leftKiB: number): Promise<LocalLab> {
  const lab = await LocalLab.openScripted(backEnd, { type: "cloud-hypervisor" });
  onTestFinished(async () => await lab.close());
  await mkdir(lab.stateDirectory, { mode: 0o700 });
  mountTmpfs(lab.stateDirectory, "size=8m,mode=700");
  await fill(lab, leftKiB);
  return lab;
}

function fillerOf(lab: LocalLab): string {
  return join(lab.stateDirectory, ".filler");
}

/** Leaves so much of the state directory's file system. */
async function fill(lab: LocalLab, leftKiB: number): Promise<void> {
  const { bavail, bsize } = await statfs(lab.stateDirectory);
  const bytes = Math.max(0, bavail * bsize - leftKiB * 1024);
  try {
    await writeFile(fillerOf(lab), Buffer.alloc(bytes), { flag: "a" });
  } catch (error) {
    if (leftKiB > 0 || systemCodeOf(error) !== "ENOSPC") throw error; // the guest's console was first
  }
}

/** Links and rules of this namespace. */
function hostNetwork(): string {
  return ["ip -br link", "nft list ruleset"]
    .map((line) => execFileSync("/bin/sh", ["-c", line], { encoding: "utf8" }))
    .join("\n");
}

function faults(): void {
  describe(title, () => {
    // At the claim of the name, the copy of the kernel, the making of the disk, the record of a step.
    it.each([0, 12, 64, 300, 312])("fails a create with %i KiB left, which leaves nothing", async (left) => {
      const before = hostNetwork();
      const lab = await smallLab(left);
      const error = await lab.failureOf(await lab.request(choice));
      expect(error.code).toBe("state-directory");
      expect(error.message).toContain("the file system is full");
      expect(hostNetwork()).toBe(before);
    });

    it("is named as the cause where it takes the guest's console, and leaves nothing", async () => {
      const before = hostNetwork();
      const lab = await smallLab(4096);
      const request = await lab.request({ ...choice, console: "never said", timeoutSeconds: 3 });
      const failure = lab.failureOf(request);
      await untilPhase(request, ({ phase }) => phase === "started");
      await fill(lab, 0);
      const error = await failure;
      expect(error.code).toBe("state-directory");
      expect(error.message).toMatch(
        /has run full, so that what the guest prints is lost; free some space on it/,
      );
      expect(hostNetwork()).toBe(before);
    });

    it("fails a resize and a snapshot, and the VM is as it was; removing it makes room", async () => {
      const before = hostNetwork();
      const lab = await smallLab(4096);
      const { vm, request, reference } = await lab.create(choice);
      await fill(lab, 0);
      const { vmName, owner, signal, notice, boot } = request;
      const disks = boot.disks.map((disk) => ({ ...disk, numQueues: 3 }));
      const size = { vcpus: 3, memoryMiB: 512, statefulDiskMiB: 96, disks, portForwards: [] };
      const grown = { ...request, boot: { ...boot, ...size } };
      await expect(lab.update(reference, grown)).rejects.toMatchObject({ code: "state-directory" });
      const id = `${vmName}-0123456789abcdef`;
      await expect(lab.backend.takeSnapshot({ id, reference, owner, signal, notice })).rejects.toMatchObject({
        code: "state-directory",
      });

      expect(await lab.backend.observe(reference)).toEqual(vm);
      const { statefulDisk, snapshots } = vmPaths(lab.stateDirectory, vmName);
      expect((await stat(statefulDisk)).size).toBe(32 * MIB);
      expect(existsSync(join(snapshots, id))).toBe(false);
      expect(existsSync(join(lab.stateDirectory, ".snapshots"))).toBe(false);

      rmSync(fillerOf(lab));
      expect((await lab.update(reference, grown)).pid).toBe(vm.pid);
      await fill(lab, 0);
      await lab.remove(reference, 0);
      expect(lab.leftoversOf(request)).toEqual([]);
      expect(hostNetwork()).toBe(before);
    });
  });
}
