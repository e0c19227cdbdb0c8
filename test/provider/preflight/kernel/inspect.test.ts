import { execFileSync } from "node:child_process";
import { chmod, mkdir, mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { inspectKernel, type KernelFacts } from "../../../../provider/preflight/kernel/inspect.js";
import { isOnPath } from "../../../lab/programs.js";
import { arm64Image, bzImage, unpackedKernel, vmlinux } from "./images.js";

const RELEASE = "6.1.999-test";
const CONFIGURATION =
  'CONFIG_NFS_FS=y\nCONFIG_NFS_V3=m\nCONFIG_LOCALVERSION="-test"\n# CONFIG_IP_PNP is not set\n';

let folder: string;
let image: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "kernel-inspect-"));
  image = join(folder, "vmlinuz");
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

function optionsOf(facts: KernelFacts): Record<string, string> | string {
  const { configuration } = facts;
  return configuration.found ? Object.fromEntries(configuration.options) : configuration.reason;
}

function packed(program: string, args: readonly string[], content: Buffer): Buffer {
  const size = Buffer.alloc(4);
  size.writeUInt32LE(content.length);
  return Buffer.concat([execFileSync(program, args, { input: content }), size]);
}

async function refused(path: string): Promise<unknown> {
  return inspectKernel(path).catch((error: unknown) => error);
}

describe("the configuration of a kernel", () => {
  it("is read from config-RELEASE beside the image", async () => {
    await writeFile(image, bzImage(RELEASE, Buffer.from("not packed in any way")));
    await writeFile(join(folder, `config-${RELEASE}`), CONFIGURATION);
    const facts = await inspectKernel(image);
    expect(facts).toMatchObject({ processor: "x86_64", format: "bzImage", release: RELEASE, path: image });
    expect(facts.configuration).toMatchObject({ found: true, source: join(folder, `config-${RELEASE}`) });
    expect(optionsOf(facts)).toEqual({ NFS_FS: "y", NFS_V3: "m", LOCALVERSION: "-test" });
  });

  it("is found beside the file that a link leads to", async () => {
    await mkdir(join(folder, "boot"));
    await writeFile(join(folder, "boot", "kernel"), bzImage(RELEASE, Buffer.alloc(8)));
    await writeFile(join(folder, "boot", `config-${RELEASE}`), CONFIGURATION);
    await symlink("boot/kernel", image);
    const facts = await inspectKernel(image);
    expect(facts.realPath).toBe(join(folder, "boot", "kernel"));
    expect(optionsOf(facts)).toMatchObject({ NFS_FS: "y" });
  });

  it("is read from the image when no file has it", async () => {
    await writeFile(image, bzImage(RELEASE, gzipSync(unpackedKernel(RELEASE, CONFIGURATION))));
    const facts = await inspectKernel(image);
    expect(facts.configuration).toMatchObject({ found: true, source: "image" });
    expect(optionsOf(facts)).toMatchObject({ NFS_V3: "m" });
  });

  for (const [program, args] of [
    ["xz", ["--check=crc32", "-c"]],
    ["xz", ["--format=lzma", "-c"]],
    ["zstd", ["-q", "-c"]],
    ["lz4", ["-l", "-q", "-c"]],
    ["bzip2", ["-c"]],
    ["lzop", ["-c"]],
  ] as const) {
    const missing = isOnPath(program) ? "" : ` (skipped: ${program} is not installed)`;
    it.skipIf(missing)(`is read from an image packed by ${program} ${args.join(" ")}${missing}`, async () => {
      await writeFile(image, bzImage(RELEASE, packed(program, args, unpackedKernel(RELEASE, CONFIGURATION))));
      expect(optionsOf(await inspectKernel(image))).toMatchObject({ NFS_FS: "y" });
    });
  }

  it("is said to be nowhere, with the package to install, when the program that unpacks it is missing", async () => {
    await writeFile(image, bzImage(RELEASE, Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0])));
    const path = process.env["PATH"];
    process.env["PATH"] = folder;
    try {
      expect(optionsOf(await inspectKernel(image))).toContain("zstd is not installed (package zstd)");
    } finally {
      process.env["PATH"] = path;
    }
  });

  it("is read from a file config beside the image only when neither the image nor a named file has it", async () => {
    await writeFile(image, bzImage(RELEASE, gzipSync(unpackedKernel(RELEASE))));
    await writeFile(join(folder, "config"), CONFIGURATION);
    const facts = await inspectKernel(image);
    expect(facts.configuration).toMatchObject({ found: true, source: join(folder, "config") });
  });

  it("is said to be nowhere, with what was in the way", async () => {
    await writeFile(image, bzImage(RELEASE, gzipSync(unpackedKernel(RELEASE))));
    await writeFile(join(folder, `config-${RELEASE}`), "");
    const reason = optionsOf(await inspectKernel(image));
    expect(reason).toContain("built without CONFIG_IKCONFIG");
    expect(reason).toContain(`config-${RELEASE} holds no CONFIG_ lines`);
  });

  it("is said to be nowhere when the image is damaged inside or packed in an unknown way", async () => {
    await writeFile(image, bzImage(RELEASE, Buffer.from("no known compression at all")));
    expect(optionsOf(await inspectKernel(image))).toContain("its compression is not known");
    const cut = gzipSync(unpackedKernel(RELEASE, CONFIGURATION)).subarray(0, 60);
    await writeFile(image, bzImage(RELEASE, cut));
    expect(optionsOf(await inspectKernel(image))).toContain("its gzip data is damaged");
  });
});

describe("the format of a kernel", () => {
  it("is a vmlinux, whose release is in its banner", async () => {
    await writeFile(image, vmlinux(unpackedKernel(RELEASE, CONFIGURATION)));
    const facts = await inspectKernel(image);
    expect(facts).toMatchObject({ processor: "x86_64", format: "vmlinux", release: RELEASE });
    expect(optionsOf(facts)).toMatchObject({ NFS_FS: "y" });
  });

  it("is an arm64 vmlinux, Image or gzip'ed Image", async () => {
    const content = unpackedKernel(RELEASE, CONFIGURATION);
    await writeFile(image, vmlinux(content, 183));
    expect(await inspectKernel(image)).toMatchObject({ processor: "aarch64", format: "vmlinux" });
    await writeFile(image, arm64Image(content));
    const plain = await inspectKernel(image);
    expect(plain).toMatchObject({ processor: "aarch64", format: "arm64-image", release: RELEASE });
    expect(optionsOf(plain)).toMatchObject({ NFS_FS: "y" });
    await writeFile(image, gzipSync(arm64Image(content)));
    const gzipped = await inspectKernel(image);
    expect(gzipped).toMatchObject({ processor: "aarch64", format: "arm64-image-gzip", release: RELEASE });
    expect(optionsOf(gzipped)).toMatchObject({ NFS_FS: "y" });
  });

  it("of an arm64 Image with its configuration beside it takes the release from the image", async () => {
    await writeFile(image, arm64Image(unpackedKernel(RELEASE)));
    await writeFile(join(folder, `config-${RELEASE}`), CONFIGURATION);
    expect(optionsOf(await inspectKernel(image))).toMatchObject({ NFS_FS: "y" });
  });
});

describe("a file that cannot be booted is refused, naming the input kernel", () => {
  it.each([
    ["text", Buffer.from("hello\n".repeat(200)), "neither a vmlinux"],
    ["nothing", Buffer.alloc(0), "neither a vmlinux"],
    ["a 32-bit kernel", bzImage(RELEASE, Buffer.alloc(8), { bits: 32 }), "32-bit kernel"],
    ["an ancient kernel", bzImage(RELEASE, Buffer.alloc(8), { protocol: 0x206 }), "before Linux 3.8"],
    ["a bzImage cut short", bzImage(RELEASE, Buffer.alloc(4096)).subarray(0, 2600), "cut short"],
    ["a vmlinux cut short", vmlinux(unpackedKernel(RELEASE)).subarray(0, 5000), "cut short"],
    [
      "a kernel for another processor",
      vmlinux(unpackedKernel(RELEASE), 243),
      "another processor (machine 243)",
    ],
    ["an ELF program that is no kernel", vmlinux(Buffer.alloc(100)), "ELF program"],
    ["a gzip file of something else", gzipSync("hello"), "not of an arm64 Image"],
    ["an EFI zboot image", Buffer.from("MZ\0\0zimg".padEnd(1000, "\0"), "latin1"), "zboot"],
  ])("%s", async (_name, content, words) => {
    await writeFile(image, content);
    const error = await refused(image);
    expect(error).toMatchObject({ code: "file-unusable", input: "kernel" });
    expect(String(error)).toContain(words);
  });

  it("the node program that runs this test", async () => {
    expect(await refused(process.execPath)).toMatchObject({ code: "file-unusable", input: "kernel" });
  });

  it("a missing file, a directory, a named pipe", async () => {
    expect(String(await refused(join(folder, "missing")))).toContain("does not exist");
    expect(String(await refused(join(image, "below", "nothing")))).toContain("does not exist");
    expect(String(await refused(folder))).toContain("not a regular file");
    execFileSync("mkfifo", [join(folder, "pipe")]);
    expect(String(await refused(join(folder, "pipe")))).toContain("not a regular file");
  });

  it("an unreadable file, with the remedy", async () => {
    await writeFile(image, bzImage(RELEASE, Buffer.alloc(8)));
    await chmod(folder, 0o755);
    await chmod(image, 0o000);
    // Root reads everything, so it is somebody else for a moment.
    const isRoot = process.geteuid?.() === 0;
    if (isRoot) process.seteuid?.(65534);
    try {
      expect(String(await refused(image))).toContain("sudo chmod 0644");
    } finally {
      if (isRoot) process.seteuid?.(0);
    }
  });
});

describe("inspecting again", () => {
  it("gives the same facts for the same file, and new ones for a changed file of the same size", async () => {
    await writeFile(image, bzImage(RELEASE, gzipSync(unpackedKernel(RELEASE, CONFIGURATION))));
    const first = await inspectKernel(image);
    expect(await inspectKernel(image)).toBe(first);
    await writeFile(image, bzImage("6.1.998-test", gzipSync(unpackedKernel("6.1.998-test", CONFIGURATION))));
    await utimes(image, 1, 1);
    expect((await inspectKernel(image)).release).toBe("6.1.998-test");
  });

  it("does not keep a failure", async () => {
    await writeFile(image, "text");
    await expect(inspectKernel(image)).rejects.toThrow("not a kernel");
    await writeFile(image, bzImage(RELEASE, gzipSync(unpackedKernel(RELEASE))));
    expect((await inspectKernel(image)).release).toBe(RELEASE);
  });
});
