import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { assertKvm, usableCloudHypervisor } from "../../../provider/preflight/cloud-hypervisor.js";
import { cloudHypervisorBinary } from "../../lab/programs.js";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "microvm-ch-"));
});
afterEach(async () => await rm(folder, { recursive: true, force: true }));

const type = "cloud-hypervisor" as const;

/** A program of that name that answers as the script says. */
async function program(name: string, script: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, `#!/bin/sh\n${script}\n`);
  await chmod(path, 0o755);
  return path;
}

const says = (version: string) => `echo "cloud-hypervisor ${version}"; echo "Migration Protocol Versions: 0"`;

describe("usableCloudHypervisor", () => {
  it("takes the one that backend.binary names, then CLOUD_HYPERVISOR, then PATH", async () => {
    const [named, ofEnvironment] = [await program("a", says("v50.0")), await program("b", says("v51.1"))];
    const onPath = await program("cloud-hypervisor", says("v52.0-12-gabcdef"));
    const env = { PATH: folder, CLOUD_HYPERVISOR: ofEnvironment };
    expect(await usableCloudHypervisor({ type, binary: named }, env)).toEqual({
      path: named,
      version: "v50.0",
    });
    expect(await usableCloudHypervisor({ type }, env)).toEqual({ path: ofEnvironment, version: "v51.1" });
    expect(await usableCloudHypervisor({ type }, { PATH: folder })).toEqual({
      path: onPath,
      version: "v52.0-12-gabcdef",
    });
  });

  it.each(["v49.0", "v9.0", "v49.1-3-g123"])("refuses %s, which is too old", async (version) => {
    const binary = await program("old", says(version));
    await expect(usableCloudHypervisor({ type, binary })).rejects.toMatchObject({
      code: "host-unusable",
      input: "backend.binary",
      text: expect.stringMatching(/expected Cloud Hypervisor 50\.0 or later, found .*\/old of version "v/),
    });
  });

  it("refuses another program, and one that fails", async () => {
    const other = await program("other", "echo hello");
    await expect(usableCloudHypervisor({ type, binary: other })).rejects.toThrow(
      /is no Cloud Hypervisor: .*hello/,
    );
    const failing = await program("failing", "exit 3");
    await expect(usableCloudHypervisor({ type, binary: failing })).rejects.toThrow(/--version failed/);
  });

  it.each([
    ["backend.binary", { type, binary: "/nowhere/ch" }, {}, /\/nowhere\/ch is no program/],
    ["CLOUD_HYPERVISOR", { type }, { CLOUD_HYPERVISOR: "/nowhere/ch" }, /\/nowhere\/ch is no program/],
  ])("names the input that leads to none: %s", async (input, backend, env, text) => {
    await expect(usableCloudHypervisor(backend, env)).rejects.toMatchObject({
      code: "host-unusable",
      input,
      text: expect.stringMatching(text),
    });
  });

  it("says how to come by one", async () => {
    await expect(usableCloudHypervisor({ type }, { PATH: folder })).rejects.toThrow(
      /cloud-hypervisor was not found .*install Cloud Hypervisor 50\.0 or later, or name it by backend\.binary or CLOUD_HYPERVISOR/,
    );
  });

  const binary = cloudHypervisorBinary();
  it.skipIf(binary === undefined)("takes the real one (skipped without it)", async () => {
    expect((await usableCloudHypervisor({ type, binary })).version).toMatch(/^v\d+\./);
  });
});

describe("assertKvm", () => {
  it("refuses a host whose KVM runs no guest, and names the other back end", async () => {
    const [kvmDevice, sysModule] = [join(folder, "kvm"), join(folder, "module")];
    await expect(assertKvm({ kvmDevice, sysModule })).rejects.toMatchObject({
      code: "host-unusable",
      input: "backend.type",
      text: expect.stringMatching(/there is no .*kvm.*backend \{ type: "qemu" \}/),
    });
    await writeFile(kvmDevice, "");
    await expect(assertKvm({ kvmDevice, sysModule })).rejects.toThrow(/neither kvm_intel nor kvm_amd/);
    await mkdir(join(sysModule, "kvm_amd"), { recursive: true });
    await expect(assertKvm({ kvmDevice, sysModule })).resolves.toBeUndefined();
  });
});
