import { mkdir, mkdtemp, readdir, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, type TestContext } from "vitest";
import { suiteName } from "../e2e/scene.js";
import { Stack, whyNoEngine } from "../lab/engine.js";
import { mustRun, runProcess } from "../lab/run-process.js";

const REPOSITORY = resolve(__dirname, "../..");
const kernel = process.env["MICROVM_LAB_KERNEL"];
const reason = kernel ? whyNoEngine() : "no kernel in $MICROVM_LAB_KERNEL";

/** The oldest and the newest @pulumi/pulumi that the package is held to: what its dynamic provider host does with our pointer. */
const PULUMI_VERSIONS = ["3.200.0", "3.270.0"] as const;

const args = JSON.stringify({
  kernel,
  useNfsRoot: true,
  nfsServer: "127.0.0.1",
  nfsPort: 11111,
  powerState: "stopped",
  preflight: "off",
});
const vm = (name: string, from: string): string =>
  `exports.${name} = new (require("${from}").MicroVm)("${name}", ${args}).id;\n`;

describe.skipIf(reason !== undefined)(suiteName("the package as npm packs it", reason), () => {
  let folder: string;
  let archive: string;
  let stack: Stack | undefined;

  beforeAll(async () => {
    folder = await realpath(await mkdtemp(join(tmpdir(), "package-")));
    await mustRun("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", folder], {
      cwd: REPOSITORY,
    });
    const [packed] = await readdir(folder);
    archive = join(folder, packed ?? "");
  });
  afterEach(async () => stack?.dispose());
  afterAll(async () => {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  });

  /** Installs the package, and this release of Pulumi's SDK, in an empty folder; twice by another name where asked for. */
  const install = async (context: TestContext, version: string, more: object = {}): Promise<string> => {
    const found = await runProcess("npm", [
      "view",
      "--prefer-offline",
      `@pulumi/pulumi@${version}`,
      "version",
    ]);
    context.skip(found.exitCode !== 0, `npm finds no @pulumi/pulumi ${version}`);
    const place = join(folder, `with-${version}`);
    await mkdir(place, { recursive: true });
    const dependencies = { "@pulumi/pulumi": version, "pulumi-microvm": `file:${archive}`, ...more };
    await writeFile(
      join(place, "package.json"),
      JSON.stringify({ name: "elsewhere", private: true, dependencies }),
    );
    const options = ["--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"];
    await mustRun("npm", ["install", ...options], { cwd: place });
    return join(place, "node_modules");
  };

  for (const version of PULUMI_VERSIONS) {
    it(`previews, makes and destroys as here, on @pulumi/pulumi ${version}`, async (context) => {
      const nodeModules = await install(context, version);
      const program = vm("one", "pulumi-microvm");
      const here = await Stack.create({ program });
      const expected = await previewed(here);
      await here.dispose();

      stack = await Stack.create({ program, nodeModules, env: hostOf(nodeModules) });
      const { owner: _, stateDirectory: __, generatedInitramfs: ___, ...inputs } = await previewed(stack);
      expect(expected).toMatchObject(inputs);
      expect(inputs["cmdline"]).toMatch(/^console=ttyS0 root=\/dev\/nfs /);

      await stack.mustRun("up", "--yes", "--skip-preview");
      await stack.mustRun("up", "--yes", "--skip-preview", "--refresh", "--expect-no-changes");
      await stack.mustRun("destroy", "--yes");
      expect(await stack.leftovers()).toEqual([]);
    });
  }

  it("makes one provider resource for two copies of it in one program", async (context) => {
    const [version] = PULUMI_VERSIONS;
    const nodeModules = await install(context, version, { "microvm-again": `file:${archive}` });
    const program = vm("one", "pulumi-microvm") + vm("two", "microvm-again");
    stack = await Stack.create({ program, nodeModules, env: hostOf(nodeModules) });
    const types = (await stack.previewSteps()).map(({ newState }) => newState?.type);
    expect(types.filter((type) => type === "microvm:index:MicroVm")).toHaveLength(2);
    expect(types.filter((type) => type?.startsWith("pulumi:providers:"))).toEqual([
      "pulumi:providers:pulumi-nodejs",
    ]);
  });
});

/** The environment in which the engine takes that installation's host of dynamic providers. */
function hostOf(nodeModules: string): Record<string, string> {
  const path = [process.env["MICROVM_LAB_PULUMI"], process.env["PATH"]].filter(Boolean).join(delimiter);
  return { PATH: [join(nodeModules, "@pulumi/pulumi"), path].join(delimiter) };
}

/** The checked inputs of the one MicroVm of a preview. */
async function previewed(stack: Stack): Promise<Readonly<Record<string, unknown>>> {
  const steps = await stack.previewSteps();
  return steps.find(({ newState }) => newState?.type === "microvm:index:MicroVm")?.newState?.inputs ?? {};
}
