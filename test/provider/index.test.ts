import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { claimName } from "../../provider/host/claim.js";
import { vmPaths } from "../../provider/host/paths.js";
import { writeRecord } from "../../provider/host/record.js";
import { defaultStateDirectory, openStateDirectory } from "../../provider/host/state-directory.js";
import { diff } from "../../provider/index.js";
import type { Values } from "../../provider/plan/fields.js";
import {
  checkedInputs,
  diffOf,
  existing,
  instance,
  kernelImage,
  newsOf,
  owner,
  reasons,
  replaces,
  sha256,
  useBed,
} from "./bed.js";
import { sampleRecord, sampleWork } from "./host/sample-record.js";

const bed = useBed();

describe("check of an existing VM", () => {
  it("sees that it is no longer there, and nothing else", async () => {
    const news = newsOf(bed);
    const olds = await checkedInputs({}, news);
    await openStateDirectory(defaultStateDirectory());
    // No record of it is there: that is the one thing which has changed.
    const inputs = await checkedInputs(olds, news);
    expect(inputs).toEqual({ ...olds, observed: "gone" });
    expect(await replaces(olds, inputs)).toEqual(["observed"]);
    const vm = String(olds["vmName"]);
    expect(bed.lines).toContain(`${vm}: there is no such VM any more; it is made anew`);
  });

  it("says nothing of a state directory that is not on this host", async () => {
    const news = newsOf(bed, { vmName: "elsewhere" });
    const olds = await existing(news);
    bed.lines.length = 0;
    const inputs = await checkedInputs(olds, news);
    expect(inputs).toMatchObject({ observed: "unknown", stateDirectory: "/nonexistent/state" });
    expect(bed.lines).toEqual([expect.stringMatching(/^elsewhere: not checked: .*\/nonexistent\/state/)]);
    expect(await diffOf(olds, inputs)).toMatchObject({ changes: false });
  });

  it("sees a kernel that was built anew at the same path", async () => {
    const news = newsOf(bed);
    const olds = await checkedInputs({}, news);
    await writeFile(bed.kernel, kernelImage({ release: "6.1.1-test" }));
    const inputs = await checkedInputs(olds, news);
    expect(inputs["kernelSha256"]).toBe(sha256(kernelImage({ release: "6.1.1-test" })));
    expect(await replaces(olds, inputs)).toContain("kernelSha256");
  });

  it("does not care where the same kernel is", async () => {
    const news = newsOf(bed);
    const olds = await existing(news);
    const other = join(bed.folder, "copy-of-vmlinuz");
    await writeFile(other, kernelImage());
    const inputs = await checkedInputs(olds, { ...news, kernel: other });
    expect(await diffOf(olds, inputs)).toEqual({
      changes: false,
      replaces: [],
      deleteBeforeReplace: true,
    });
  });

  describe("whose kernel has gone", () => {
    let news: Values;
    let olds: Values;
    beforeEach(async () => {
      news = newsOf(bed);
      olds = await existing(news);
      await rm(bed.kernel);
      bed.lines.length = 0;
    });

    it("keeps what is known of it, and says so", async () => {
      expect(await checkedInputs(olds, news)).toEqual({ ...olds, observed: "unknown" });
      expect(bed.lines).toContainEqual(
        expect.stringMatching(
          /^vm\d+-[0-9a-f]{8}: kernel: there is no file .*vmlinuz; .* \(the VM keeps what it was made from\)$/,
        ),
      );
    });

    it("lets the VM's settings be changed", async () => {
      const inputs = await checkedInputs(olds, { ...news, shutdownTimeoutSeconds: 5 });
      expect(await replaces(olds, inputs)).toEqual([]);
    });

    it("refuses what would delete the VM and boot a new one", async () => {
      expect(await reasons(olds, { ...news, nfsPort: 2050 })).toEqual([
        expect.stringMatching(/^kernel: there is no file .*vmlinuz;/),
      ]);
    });

    it("refuses another path at which nothing is either", async () => {
      expect(await reasons(olds, { ...news, kernel: join(bed.folder, "other") })).toEqual([
        expect.stringMatching(/^kernel: there is no file .*other;/),
      ]);
    });
  });

  it("keeps the address of a server whose name no longer resolves, until the VM is to be replaced", async () => {
    const news = newsOf(bed, { nfsServer: "gone.invalid" });
    const olds: Values = {
      ...(await existing({ ...news, nfsServer: "192.0.2.7" })),
      nfsServer: "gone.invalid",
    };
    expect(await checkedInputs(olds, news)).toMatchObject({
      nfsServerAddress: "192.0.2.7",
      cmdline: olds["cmdline"],
    });
    expect(bed.lines).toContainEqual(
      expect.stringMatching(/: nfsServer: expected a name with an IPv4 address/),
    );
    expect(await reasons(olds, { ...news, vcpus: 2 })).toEqual([
      expect.stringMatching(/^nfsServer: expected a name with an IPv4 address/),
    ]);
  });

  it("takes localhost and 127.0.0.1 for one server", async () => {
    const news = newsOf(bed);
    const olds = await existing(news);
    const inputs = await checkedInputs(olds, { ...news, nfsServer: "localhost" });
    expect((await diffOf(olds, inputs)).changes).toBe(false);
  });

  it("says that a replace drops the stateful disk", async () => {
    const news = newsOf(bed, { vmName: "dropped", statefulDiskMiB: 64 });
    const olds = await existing(news);
    bed.lines.length = 0;
    await checkedInputs(olds, { ...news, nfsPort: 2050 });
    expect(bed.lines).toContain(
      "dropped: the replace drops the stateful disk of 64 MiB and all that is on it.",
    );
    expect(await reasons(olds, { ...news, statefulDiskMiB: 32 })).toEqual([
      "statefulDiskMiB: expected at least 64 MiB, which the disk has, got 32: a disk cannot shrink [invalid-input]",
    ]);
  });

  it("refuses a new VM beside the old one on one root", async () => {
    const news = newsOf(bed, { createFirst: true });
    const olds = await existing(news);
    expect((await reasons(olds, { ...news, vcpus: 2 })).map((reason) => reason.split(":")[0])).toEqual([
      "vmName",
      "nfsPath",
    ]);
    const inputs = await checkedInputs(olds, { ...news, nfsPath: "/other" });
    expect(await diffOf(olds, inputs)).toMatchObject({
      changes: true,
      replaces: expect.arrayContaining(["vmName", "nfsPath", "cmdline"]),
      deleteBeforeReplace: false,
    });
  });
});

describe("check of a VM that has a record", () => {
  let news: Values;
  let olds: Values;
  beforeEach(async () => {
    news = newsOf(bed, { powerState: "stopped" });
    olds = await checkedInputs({}, news);
    const vmName = String(olds["vmName"]);
    const { path } = await openStateDirectory(defaultStateDirectory());
    const record = sampleRecord({ vmName, instance, owner: olds["owner"] as typeof owner });
    const { initramfs: _, ...boot } = record.boot;
    await claimName(path, record, sampleWork());
    await writeRecord(path, { ...record, phase: "ready", boot: { ...boot, disks: [], statefulDiskMiB: 0 } });
    await writeFile(vmPaths(path, vmName).kernel, kernelImage());
  });

  it("finds it as it was left", async () => {
    expect(await checkedInputs(olds, news)).toEqual(olds);
  });

  it("shows that one which was to run has stopped, and starts it again", async () => {
    const running = { ...olds, powerState: "running", observed: "running" };
    const inputs = await checkedInputs(running, { ...news, powerState: "running" });
    expect(inputs["observed"]).toBe("stopped");
    expect(await diffOf(running, inputs)).toMatchObject({
      changes: true,
      replaces: [],
    });
  });

  it("shows that its copy of the kernel is missing, and makes it anew", async () => {
    await rm(vmPaths(defaultStateDirectory(), String(olds["vmName"])).kernel);
    const inputs = await checkedInputs(olds, news);
    expect(inputs["observed"]).toBe("damaged");
    expect(await replaces(olds, inputs)).toEqual(["observed"]);
    expect(bed.lines.join("\n")).toContain("the VM is not whole any more");
  });

  it("knows it again after an alias, with its name and its owner", async () => {
    const renamed = { ...owner, urn: "urn:pulumi:dev::shop::microvm:index:MicroVm::renamed" };
    const inputs = await checkedInputs(olds, { ...news, owner: renamed });
    expect(inputs).toEqual(olds);
    expect(await checkedInputs(inputs, { ...news, owner: renamed })).toEqual(olds);
  });

  it("takes a record of another owner for another's VM: its own is gone", async () => {
    const other = { ...olds, owner: { ...owner, urn: "urn:pulumi:prod::shop::microvm:index:MicroVm::vm" } };
    expect(await checkedInputs(other, { ...news, vmName: olds["vmName"] })).toMatchObject({
      observed: "gone",
    });
  });
});

describe("values that the engine feeds back under ignoreChanges", () => {
  let news: Values;
  let olds: Values;
  beforeEach(async () => {
    news = newsOf(bed);
    olds = await existing(news);
  });

  it("are recomputed where they are derived, and no unknown inputs", async () => {
    const { cmdline, disks, observed, stateDirectory, nfsServerAddress } = olds;
    const fed = { cmdline, disks, observed, stateDirectory, nfsServerAddress };
    const inputs = await checkedInputs(olds, { ...news, ...fed, nfsServer: "192.0.2.7" });
    expect(inputs).toMatchObject({ nfsServerAddress: "192.0.2.7", observed: "unknown" });
    expect(inputs["cmdline"]).toContain(" nfsroot=192.0.2.7:/,");
  });

  it("are kept where they are digests", async () => {
    const { kernelSha256 } = olds;
    await writeFile(bed.kernel, kernelImage({ release: "6.1.1-test" }));
    const inputs = await checkedInputs(olds, { ...news, kernelSha256 });
    expect(inputs["kernelSha256"]).toBe(kernelSha256);
    expect(await replaces(olds, inputs)).toEqual([]);
    await rm(bed.kernel);
    expect(await checkedInputs(olds, { ...news, kernelSha256 })).toMatchObject({ kernelSha256 });
  });

  it("are kept for an initramfs that was made", async () => {
    const made = { initramfsSha256: "1".repeat(64), generatedInitramfs: "/state/.cache/initramfs" };
    expect(await checkedInputs({ ...olds, ...made }, { ...news, ...made })).toMatchObject(made);
  });

  it("count only as those of the VM that exists", async () => {
    const kernelSha256 = "f".repeat(64);
    const right = { kernelSha256: olds["kernelSha256"] };
    expect(await checkedInputs(olds, { ...news, kernelSha256 })).toMatchObject(right);
    expect(await checkedInputs({}, { ...news, kernelSha256 })).toMatchObject(right);
  });
});

describe("the id of a VM", () => {
  it.each(["", "vm", "vm/", "/0123456789abcdef", "vm/0123456789abcdef/x"])("is refused as %j", async (id) => {
    await expect(diff(id, {}, {})).rejects.toThrow(/^id: expected <vmName>\/<instance>, got /);
  });
});
