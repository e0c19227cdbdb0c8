import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execFileSync } from "node:child_process";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { findModules, moduleInformation, readModules } from "../../../../provider/host/initramfs/modules.js";
import { isOnPath } from "../../../lab/programs.js";
import { factsIn, moduleFile, RELEASE, writeModuleTree } from "./fixtures.js";

let folder: string;
let tree: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "initramfs-modules-"));
  tree = join(folder, "lib", "modules", RELEASE);
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function loaded(names: readonly string[], optional: readonly string[] = []): Promise<string[]> {
  const modules = await readModules(await findModules(factsIn(folder)), names, optional);
  return modules.map(({ name, required }) => (required ? name : `${name}?`));
}

function failureOf(name: string): Promise<string> {
  return loaded([name]).then(String, String);
}

describe("the modules of a kernel", () => {
  it.each(["lib/modules", "usr/lib/modules", "boot/lib/modules"])(
    "are found in %s around the image",
    async (place) => {
      await writeModuleTree(join(folder, place, RELEASE), { "a.ko": moduleFile(["depends="]) });
      expect((await findModules(factsIn(folder))).path).toBe(join(folder, place, RELEASE));
    },
  );

  it("are found in the image's own folder when that is named after the release", async () => {
    await writeModuleTree(tree, { "a.ko": moduleFile(["depends="]) });
    expect((await findModules(factsIn(folder, { realPath: join(tree, "vmlinuz") }))).path).toBe(tree);
  });

  it("that are nowhere are an error that says where they were looked for and which package has them", async () => {
    const error = await findModules(factsIn(folder)).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: "kernel-unusable", input: "kernel" });
    expect(String(error)).toContain(tree);
    expect(String(error)).toContain(`linux-image-${RELEASE}`);
  });

  it("of an unknown release are an error that says so", async () => {
    const error = findModules(factsIn(folder, { release: undefined }));
    await expect(error).rejects.toThrow("does not tell its release");
  });
});

describe("a module's own words", () => {
  it("name dependencies and soft dependencies before and after", () => {
    const content = moduleFile([
      "license=GPL",
      "depends=a-b,c",
      "softdep=pre: d-e f post: g",
      "softdep=pre: h",
    ]);
    expect(moduleInformation(content)).toEqual({
      depends: ["a_b", "c"],
      softBefore: ["d_e", "f", "h"],
      softAfter: ["g"],
    });
  });

  it("that are missing or damaged mean no dependencies", () => {
    expect(moduleInformation(Buffer.from("no ELF"))).toEqual({ depends: [], softBefore: [], softAfter: [] });
  });
});

describe("loading", () => {
  it("puts each module after what it depends on, once", async () => {
    await writeModuleTree(tree, {
      "net/virtio_net.ko": moduleFile(["depends=net_failover,virtio"]),
      "net/net-failover.ko": moduleFile(["depends=failover"]),
      "net/failover.ko": moduleFile(["depends="]),
      "virtio/virtio.ko": moduleFile(["depends="]),
      "virtio/virtio_pci.ko": moduleFile(["depends=virtio"]),
    });
    expect(await loaded(["virtio_pci", "virtio-net"])).toEqual([
      "virtio",
      "virtio_pci",
      "failover",
      "net_failover",
      "virtio_net",
    ]);
  });

  it("leaves out what is built in", async () => {
    await writeModuleTree(tree, { "a.ko": moduleFile(["depends=b"]) }, ["lib/b.ko"]);
    expect(await loaded(["a", "b"])).toEqual(["a"]);
  });

  it("takes optional modules and soft dependencies where they exist, and never requires them", async () => {
    await writeModuleTree(tree, {
      "ext4.ko": moduleFile(["depends=jbd2", "softdep=pre: crypto-crc32c absent post: late"]),
      "jbd2.ko": moduleFile(["depends="]),
      "crypto/crc32c_generic.ko": moduleFile(["depends="]),
      "late.ko": moduleFile(["depends="]),
      "button.ko": moduleFile(["depends=jbd2"]),
    });
    expect(await loaded(["ext4"], ["button", "evdev"])).toEqual([
      "crc32c_generic?",
      "jbd2",
      "ext4",
      "late?",
      "button?",
    ]);
  });

  it("requires a module that a required one depends on, even when it was first met as optional", async () => {
    await writeModuleTree(tree, {
      "a.ko": moduleFile(["softdep=pre: b"]),
      "b.ko": moduleFile(["depends=c"]),
      "c.ko": moduleFile(["depends="]),
    });
    expect(await loaded(["a"])).toEqual(["c?", "b?", "a"]);
    expect(await loaded(["a", "b"])).toEqual(["c", "b", "a"]);
  });

  it("ends when modules name each other", async () => {
    await writeModuleTree(tree, {
      "a.ko": moduleFile(["softdep=pre: b"]),
      "b.ko": moduleFile(["depends=a"]),
    });
    expect(await loaded(["a"])).toEqual(["b?", "a"]);
  });

  for (const [ending, program] of [
    [".gz", undefined],
    [".xz", "xz"],
    [".zst", "zstd"],
  ] as const) {
    const missing =
      program === undefined || isOnPath(program) ? "" : ` (skipped: ${program} is not installed)`;
    it.skipIf(missing)(`unpacks ${ending}${missing}`, async () => {
      const content = moduleFile(["depends="]);
      const packed =
        program === undefined ? gzipSync(content) : execFileSync(program, ["-c", "-q"], { input: content });
      await writeModuleTree(tree, { [`a.ko${ending}`]: packed }, [], ["a.ko"]);
      const [module] = await readModules(await findModules(factsIn(folder)), ["a"], []);
      expect(module).toMatchObject({ name: "a", path: join(tree, "kernel", `a.ko${ending}`), content });
    });
  }

  it("fails when a needed module is not listed, not there, or damaged", async () => {
    await writeModuleTree(tree, { "c.ko.gz": Buffer.from("no gzip") }, [], ["b.ko", "c.ko"]);
    expect(await failureOf("a")).toContain(`module a is needed, and ${tree} does not list it`);
    expect(await failureOf("b")).toContain("b.ko is missing");
    expect(await failureOf("c")).toContain("gzip data is damaged");
  });
});
