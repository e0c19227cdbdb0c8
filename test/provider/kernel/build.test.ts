import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { buildKernel, type KernelBuildRequest, OWN_FRAGMENT } from "../../../provider/kernel/build.js";
import { lostLines, parseFragment } from "../../../provider/kernel/fragment.js";
import { assertTools, buildTools } from "../../../provider/kernel/program.js";
import { abilitiesOf } from "../../../provider/preflight/kernel/abilities.js";
import { inspectKernel } from "../../../provider/preflight/kernel/inspect.js";
import { compilations, packSource, RELEASE, writeSource } from "./scripted-source.js";

const why = ((): string => {
  if (process.arch !== "x64") return " (kernels are built on x86-64 alone)";
  try {
    assertTools(buildTools);
    return "";
  } catch (error) {
    return ` (${String(error)})`;
  }
})();

let folder: string;
let source: string;
let output: string;
let lines: string[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "kernel-build-"));
  source = join(folder, "linux");
  output = join(folder, "out");
  lines = [];
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

const build = (request: Partial<KernelBuildRequest> = {}) =>
  buildKernel({
    source,
    output,
    fragments: [],
    jobs: 1,
    signal: new AbortController().signal,
    progress: (line) => lines.push(line),
    ...request,
  });

describe.skipIf(why !== "")(`microvm kernel build, from a scripted source${why}`, () => {
  it("makes bzImage with its configuration beside it, and leaves nothing else", async () => {
    await writeSource(source);
    const built = await build();
    expect(built).toMatchObject({ image: join(output, "bzImage"), release: RELEASE, cached: false });
    expect((await readdir(output)).toSorted()).toEqual(["bzImage", `config-${RELEASE}`, "kernel-build.json"]);
    expect(await readFile(built.configuration, "utf8")).toContain("CONFIG_ROOT_NFS=y\n");
    const abilities = await abilitiesOf(await inspectKernel(built.image));
    expect(abilities.filter(({ root, boots }) => root === "nfs" && boots !== "yes")).toEqual([]);
  });

  it("builds a tarball once, and again when source, fragment or result differ", async () => {
    await writeSource(source);
    const tarball = join(folder, "linux.tar.xz");
    packSource(source, tarball);
    expect(await build({ source: tarball })).toMatchObject({ cached: false });
    expect(await build({ source: tarball })).toMatchObject({ cached: true });
    expect(await compilations(source)).toBe(1);

    const fragment = join(folder, "my.config");
    await writeFile(fragment, "CONFIG_CRYPTO=y\n");
    expect(await build({ source: tarball, fragments: [fragment] })).toMatchObject({ cached: false });
    expect(await readFile(join(output, `config-${RELEASE}`), "utf8")).toContain("CONFIG_CRYPTO=y\n");

    await writeFile(join(output, "bzImage"), "torn");
    expect(await build({ source: tarball, fragments: [fragment] })).toMatchObject({ cached: false });

    await writeSource(source, { compile: "true" });
    packSource(source, tarball);
    expect(await build({ source: tarball, fragments: [fragment] })).toMatchObject({ cached: false });
    expect(await compilations(source)).toBe(4);
  });

  it("builds a folder without touching it, and again once a file in it changed", async () => {
    await writeSource(source);
    const before = await readdir(source);
    await build();
    expect(await build()).toMatchObject({ cached: true });
    await writeFile(join(source, "init/main.c"), "/* changed */");
    expect(await build()).toMatchObject({ cached: false });
    expect(await readdir(source)).toEqual(before);
  });

  it("lets two builds in one folder wait for each other", async () => {
    await writeSource(source);
    const both = await Promise.all([build(), build()]);
    expect(both.filter(({ cached }) => cached)).toHaveLength(1);
    expect(await compilations(source)).toBe(1);
  });

  it("refuses a source that is missing, incomplete, torn, or was built in", async () => {
    await expect(build({ source: join(folder, "absent") })).rejects.toThrow("--source: ");
    await mkdir(source);
    await writeFile(join(source, "Makefile"), "VERSION = 6\n");
    await expect(build()).rejects.toThrow("is no whole Linux source: it has no Kconfig");

    const torn = join(folder, "torn.tar.xz");
    await writeFile(torn, "not a tarball");
    await expect(build({ source: torn })).rejects.toMatchObject({
      code: "file-unusable",
      text: expect.stringMatching(/^\S+torn\.tar\.xz cannot be unpacked: tar /) as unknown,
    });

    const partial = join(folder, "partial.tar.xz");
    packSource(source, partial);
    await expect(build({ source: partial })).rejects.toThrow("partial.tar.xz is no whole Linux source");

    await writeSource(source);
    await writeFile(join(source, ".config"), "");
    await expect(build()).rejects.toThrow("Run make mrproper in it");
    expect(await readdir(output)).toEqual([]);
  });

  it("refuses before it compiles what would boot no NFS root", async () => {
    await writeSource(source, { unknown: ["ROOT_NFS", "RTC_CLASS"] });
    await expect(build()).rejects.toMatchObject({
      code: "kernel-unusable",
      text: expect.stringContaining(
        "CONFIG_ROOT_NFS is not set: needed to mount an NFS root by itself",
      ) as unknown,
    });
    expect(lines).toContain("this kernel does not take CONFIG_RTC_CLASS=y, CONFIG_ROOT_NFS=y");
    expect(await compilations(source)).toBe(0);

    const fragment = join(folder, "my.config");
    await writeFile(fragment, "# CONFIG_NFS_V3 is not set\n");
    await writeSource(source);
    await expect(build({ fragments: [fragment] })).rejects.toThrow("CONFIG_NFS_V3 is not set");
  });

  it("refuses a person's option that the kernel does not take", async () => {
    await writeSource(source, { unknown: ["NO_SUCH_OPTION"] });
    const fragment = join(folder, "my.config");
    await writeFile(fragment, "CONFIG_NO_SUCH_OPTION=y\n");
    await expect(build({ fragments: [fragment] })).rejects.toThrow(
      "--config: this kernel does not take CONFIG_NO_SUCH_OPTION=y",
    );
    await expect(build({ fragments: [join(folder, "absent")] })).rejects.toThrow("--config: ");
  });

  it("refuses an image that is not what its configuration says, and keeps the one of before", async () => {
    await writeSource(source);
    const { image } = await build();
    const before = await readFile(image);
    await writeSource(source, { lacking: ["IP_PNP"] });
    await expect(build()).rejects.toThrow("CONFIG_IP_PNP is not set");
    expect(await readFile(image)).toEqual(before);
  });

  it("tells the compiler's last words, and where the rest is", async () => {
    await writeSource(source, { compile: "echo main.c:1: error: no such thing; exit 1" });
    await expect(build()).rejects.toMatchObject({
      code: "kernel-build",
      text: expect.stringMatching(/^make bzImage failed .*\n.*no such thing[^]*build\.log$/) as unknown,
    });
    expect(await readFile(join(output, "build.log"), "utf8")).toContain("no such thing");
    expect(await readdir(output)).toEqual(["build.log"]);
  });

  it("ends its compilers and removes what it began when it is interrupted", async () => {
    const pids = join(folder, "pid");
    await writeSource(source, { compile: `sh -c 'echo $$$$ >${pids}; exec sleep 100'` });
    const interrupt = new AbortController();
    const running = build({ signal: interrupt.signal });
    const pid = async () => Number(await readFile(pids, "utf8").catch(() => "0"));
    await expect.poll(pid, { timeout: 20_000 }).toBeGreaterThan(0);
    interrupt.abort();
    await expect(running).rejects.toThrow("aborted");
    const compiler = await pid();
    await expect.poll(() => isRunning(compiler), { timeout: 10_000 }).toBe(false);
    expect(await readdir(output)).toEqual([]);
  });
});

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false; // ESRCH
  }
}

describe("the tools of a kernel build", () => {
  it("are named all at once, with their packages, where they are missing", () => {
    const tools = ["one", "two"].map((name) => ({ name: `microvm-no-${name}`, package: `package-${name}` }));
    expect(() => assertTools([...tools, { name: "sh", package: "dash" }])).toThrow(
      "takes microvm-no-one, microvm-no-two, which this host has not. Install them (Debian and Ubuntu: apt-get install package-one package-two)",
    );
  });
});

const labKernel = process.env["MICROVM_LAB_NFS_KERNEL"];
const noLab = labKernel === undefined ? " (MICROVM_LAB_NFS_KERNEL is not set)" : "";
describe.skipIf(noLab !== "")(`the kernel that it builds${noLab}`, () => {
  it("has each option of the fragment, boots every root without modules, misses nothing, and has at most 6 MiB", async () => {
    const facts = await inspectKernel(labKernel ?? "");
    const bytes = await readFile(labKernel ?? "");
    expect(bytes.length).toBeLessThanOrEqual(6 * 2 ** 20);
    const configuration = join(labKernel ?? "", "..", `config-${facts.release}`);
    const own = parseFragment(await readFile(OWN_FRAGMENT, "utf8"), OWN_FRAGMENT);
    expect(lostLines(own, await readFile(configuration, "utf8"))).toEqual([]);

    // The image alone, with nothing beside it to go by.
    await mkdir(join(folder, "alone"));
    await writeFile(join(folder, "alone", "bzImage"), bytes);
    const alone = await inspectKernel(join(folder, "alone", "bzImage"));
    expect(alone.configuration).toMatchObject({ found: true, source: "image" });
    const abilities = await abilitiesOf(alone);
    expect(abilities.flatMap(({ remarks }) => remarks)).toEqual([]);
    expect(abilities.filter(({ root, boots }) => root !== "overlay" && boots !== "yes")).toEqual([]);
  });
});
