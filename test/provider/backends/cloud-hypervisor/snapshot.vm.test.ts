import { randomBytes } from "node:crypto";
import { readdir } from "node:fs/promises";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import {
  cloudHypervisor,
  programOf,
} from "../../../../provider/backends/cloud-hypervisor/cloud-hypervisor.js";
import { localBackend } from "../../../../provider/backends/local/local.js";
import { MicroVmError } from "../../../../provider/errors.js";
import { snapshotPaths, vmPaths } from "../../../../provider/host/paths.js";
import { observeSnapshot, removeSnapshot } from "../../../../provider/host/snapshots.js";
import { isInNamespace, runInNamespace, whyNoNamespace } from "../../../lab/namespace.js";
import { cloudHypervisorBinary } from "../../../lab/programs.js";
import { LocalLab } from "../local-lab.js";

const binary = cloudHypervisorBinary();
const reason =
  binary === undefined ? "no cloud-hypervisor on PATH or in $CLOUD_HYPERVISOR" : whyNoNamespace();

/** What Cloud Hypervisor says where KVM is that of a host which is itself a guest. */
const CANNOT = /Could not get vCPU state/;

if (reason !== undefined) {
  describe("a snapshot on the real Cloud Hypervisor", () => it.skip(`skipped: ${reason}`, () => undefined));
} else if (isInNamespace()) {
  describe("a snapshot on the real Cloud Hypervisor", () => {
    let lab: LocalLab;
    beforeAll(async () => {
      const vmm = { ...cloudHypervisor, find: () => Promise.resolve(programOf(binary ?? "")) };
      lab = await LocalLab.openScripted(localBackend(vmm), { type: "cloud-hypervisor", binary });
    });
    afterAll(async () => await lab.close());

    it("is whole, or none and its error says why; the VM runs on either way", async () => {
      const { request, vm, reference } = await lab.create({ statefulDiskMiB: 32 });
      const { vmName, owner, signal, notice, stateDirectory } = request;
      const id = `${vmName}-${randomBytes(8).toString("hex")}`;
      const error: unknown = await lab.backend
        .takeSnapshot({ id, reference, owner, signal, notice })
        .then(() => undefined)
        .catch((failure: unknown) => failure);
      expect(await lab.backend.observe(reference)).toEqual(vm);
      expect(await readdir(vmPaths(stateDirectory, vmName).snapshots)).toEqual([]);
      if (error === undefined) {
        expect(await observeSnapshot(stateDirectory, id)).toBe("there");
        await removeSnapshot(stateDirectory, id);
      } else {
        expect(error).toBeInstanceOf(MicroVmError);
        expect(error).toMatchObject({ code: "vmm-failed", message: expect.stringMatching(CANNOT) });
      }
      expect(await observeSnapshot(stateDirectory, id)).toBe("gone");
      await expect(readdir(snapshotPaths(stateDirectory, id).parent)).rejects.toMatchObject({
        code: "ENOENT",
      });
      await lab.remove(reference);
      expect(lab.leftoversOf(request)).toEqual([]);
    });
  });
} else {
  it("a snapshot on the real Cloud Hypervisor, in a network namespace of its own", () => {
    expect(runInNamespace(__filename)).toBe(0);
  });
}
