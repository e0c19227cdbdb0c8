import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { chooseAccelerator, findKvm, findQemu, qemuHost } from "../../../provider/preflight/host.js";
import { isOnPath } from "../../lab/programs.js";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "microvm-host-"));
});
afterEach(async () => await rm(folder, { recursive: true, force: true }));

/** A host with a device file and these modules. */
async function hostWith(modules: readonly string[]): Promise<{ kvmDevice: string; sysModule: string }> {
  const paths = { kvmDevice: join(folder, "kvm"), sysModule: join(folder, "module") };
  await writeFile(paths.kvmDevice, "");
  for (const module of modules) await mkdir(join(paths.sysModule, module), { recursive: true });
  return paths;
}

/** A program of that name that answers as the script says. */
async function program(name: string, script: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, `#!/bin/sh\n${script}\n`);
  await chmod(path, 0o755);
  return path;
}

describe("KVM", () => {
  it.each(["kvm_intel", "kvm_amd"])("counts with the module %s", async (module) => {
    const paths = await hostWith(["kvm", module]);
    expect(await findKvm(paths)).toEqual({ usable: true });
    expect(await chooseAccelerator("auto", paths)).toBe("kvm");
    expect(await chooseAccelerator("kvm", paths)).toBe("kvm");
    expect(await chooseAccelerator("tcg", paths)).toBe("tcg");
  });

  it("does not count where the device is there but only for kernels made for it", async () => {
    const paths = await hostWith(["kvm", "kvm_pvm"]);
    expect(await chooseAccelerator("auto", paths)).toBe("tcg");
    await expect(chooseAccelerator("kvm", paths)).rejects.toMatchObject({
      code: "host-unusable",
      input: "backend.accelerator",
      message: expect.stringContaining("neither kvm_intel nor kvm_amd is loaded") as string,
    });
  });

  it("does not count without a device", async () => {
    const finding = await findKvm({ kvmDevice: join(folder, "none") });
    expect(finding).toEqual({ usable: false, why: `there is no ${folder}/none` });
  });

  const isRoot = process.getuid?.() === 0;
  it.skipIf(isRoot)(
    `does not count where this user may not open it${isRoot ? " (skipped: root may)" : ""}`,
    async () => {
      const paths = await hostWith(["kvm_intel"]);
      await chmod(paths.kvmDevice, 0o000);
      expect(await findKvm(paths)).toMatchObject({
        usable: false,
        why: expect.stringContaining("group kvm") as string,
      });
    },
  );
});

describe("the QEMU binary", () => {
  const QEMU = `case "$*" in
-version) echo "QEMU emulator version 9.1.0 (of a test)";;
"-machine help") printf "Supported machines are:\\nmicrovm   microvm (i386)\\nq35   Standard PC (alias of pc-q35-9.1)\\n";;
-sandbox*) exit 1;;
esac`;

  it("is looked for on PATH", async () => {
    const path = await program("qemu-system-x86_64", QEMU);
    const found = await findQemu(undefined, { PATH: `relative:${folder}/none:${folder}` });
    expect(found).toMatchObject({ path, version: "9.1.0", sandbox: false });
    expect([...found.machines]).toEqual(["microvm", "q35", "pc-q35-9.1"]);
  });

  it("is the one that the back end names, before MICROVM_QEMU", async () => {
    const mine = await program("mine", QEMU);
    const other = await program("other", QEMU);
    const env = { PATH: "/usr/bin", MICROVM_QEMU: other };
    expect((await findQemu(mine, env)).path).toBe(mine);
    expect((await findQemu(undefined, env)).path).toBe(other);
  });

  it("is missing: the error names the package", async () => {
    await expect(findQemu(undefined, { PATH: folder })).rejects.toThrow(/apt-get install qemu-system-x86/);
    await expect(findQemu("/no/qemu")).rejects.toMatchObject({
      code: "host-unusable",
      input: "backend.binary",
    });
    const env = { PATH: folder, MICROVM_QEMU: "no-such-qemu" };
    await expect(findQemu(undefined, env)).rejects.toMatchObject({ input: "MICROVM_QEMU" });
  });

  it("is another program: the error shows what it answered", async () => {
    const path = await program("cat", "echo meow");
    await expect(findQemu(path)).rejects.toThrow(/is no QEMU: it answers -version with "meow/);
  });

  it("does not start: the error carries its words", async () => {
    const path = await program("broken", "echo cannot open shared object file >&2; exit 127");
    await expect(findQemu(path)).rejects.toThrow(/cannot open shared object file/);
  });

  it("is found through a link", async () => {
    const path = await program("real", QEMU);
    await symlink(path, join(folder, "qemu-system-x86_64"));
    expect((await findQemu(undefined, { PATH: folder })).version).toBe("9.1.0");
  });

  it("lacks the machine type: the error names the input", async () => {
    const path = await program("small", QEMU.replace("microvm   microvm (i386)\\n", ""));
    const backend = { type: "qemu", machine: "microvm", accelerator: "tcg", binary: path } as const;
    await expect(qemuHost(backend)).rejects.toMatchObject({
      code: "host-unusable",
      input: "backend.machine",
    });
  });

  const noQemu = isOnPath("qemu-system-x86_64") ? "" : " (skipped: qemu-system-x86_64 is not installed)";
  it.skipIf(noQemu !== "")(`of this host is understood${noQemu}`, async () => {
    const { program: found } = await qemuHost({ type: "qemu", machine: "microvm", accelerator: "auto" });
    expect(found.version).toMatch(/^\d+\.\d+/);
    expect(found.machines).toContain("q35");
  });
});
