import { appendFile, copyFile, mkdir, stat, symlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeDiskImage } from "../lab/guest.js";
import {
  type Args,
  expectFailure,
  expectSuccess,
  forwardPort,
  killWithProviders,
  programOf,
  Scene,
  suiteName,
  textOf,
  theVm,
  upAfterKill,
  vmms,
  watchVmms,
  whyNoGuest,
} from "./scene.js";

const reason = whyNoGuest();

describe.skipIf(reason !== undefined)(suiteName("replacing a VM", reason), () => {
  let scene: Scene;

  beforeAll(async () => {
    scene = await Scene.open({ blue: "complete", green: "complete", red: "complete" });
  });
  afterAll(() => scene?.close());

  it("is previewed for whatever decides the root and for a kernel's content, and not for another name of the same", async () => {
    const kernel = await kernelCopy(scene);
    const image = join(scene.folder, "root.img");
    await makeDiskImage(scene.root("blue"), image);
    // Nothing boots here, so a server that is not there does no harm.
    const base = scene.args("blue", { powerState: "stopped", preflight: "off" });
    const own = (name: string): Args => (/kernel/.test(name) ? { ...base, kernel } : base);
    const cases: Record<
      string,
      { change: Args; options?: string; op?: string; reasons?: readonly string[] }
    > = {
      "other-server": { change: { nfsServer: "192.0.2.10" }, reasons: ["nfsServer", "cmdline"] },
      "other-port": { change: { nfsPort: await forwardPort() }, reasons: ["nfsPort", "cmdline"] },
      "other-path": { change: { nfsPath: scene.root("green") }, reasons: ["nfsPath", "cmdline"] },
      "a-disk": {
        change: { useNfsRoot: false, nfsServer: undefined, rootfs: image },
        reasons: ["useNfsRoot", "cmdline", "rootfsDigest"],
      },
      "kernel-content": { change: {}, reasons: ["kernelSha256"] },
      "server-alias": { change: { nfsServer: "localhost" }, op: "same" },
      "default-spelled-out": { change: { nfsOptions: "rsize=1048576,wsize=1048576", vcpus: 1 }, op: "same" },
      "ignored-path": {
        change: { nfsPath: scene.root("green") },
        options: '{ ignoreChanges: ["nfsPath"] }',
        op: "same",
      },
      "ignored-kernel": { change: {}, options: '{ ignoreChanges: ["kernelSha256"] }', op: "same" },
      "other-wait": { change: { readiness: { timeoutSeconds: 60 } }, op: "update" },
    };
    const program = (args: (name: string) => Args): string =>
      programOf(
        Object.fromEntries(
          Object.entries(cases).map(([name, { options }]) => [name, { args: args(name), options }]),
        ),
      );
    const stack = await scene.stack(program(own));
    expectSuccess(await stack.up());

    await appendFile(kernel, "\0");
    await stack.writeProgram({ "index.js": program((name) => ({ ...own(name), ...cases[name]?.change })) });
    const steps = await stack.previewSteps();
    for (const [name, { op = "replace", reasons = [] }] of Object.entries(cases)) {
      const [step, ...more] = steps.filter(
        (each) => each.urn.endsWith(`::${name}`) && !/-replace/.test(each.op),
      );
      const found = { op: step?.op, reasons: step?.replaceReasons ?? [], more };
      expect(found, name).toEqual({ op, reasons: expect.arrayContaining([...reasons]), more: [] });
    }
    expectSuccess(await stack.destroy());
    expect(await stack.leftovers()).toEqual([]);
  });

  describe("by default", () => {
    const write = (root: string) =>
      stack.writeProgram({ "index.js": programOf({ vm: { args: scene.args(root) } }) });
    let stack: Awaited<ReturnType<Scene["stack"]>>;

    /** Runs a replacement, and holds that the two VMs never ran at once and that the new one does. */
    const replace = async (...args: string[]): Promise<void> => {
      const before = await theVm(stack);
      const watch = watchVmms(stack);
      const result = await stack.up(...args);
      const { most, pids } = await watch.stop();
      expectSuccess(result);
      const after = await theVm(stack);
      expect(after.vmName).toBe(before.vmName);
      expect(after.instance).not.toBe(before.instance);
      expect({ most, pids }).toEqual({ most: 1, pids: [before.pid, after.pid] });
      expect(await vmms(stack)).toEqual([after.pid]);
    };

    beforeAll(async () => {
      stack = await scene.stack(programOf({ vm: { args: scene.args("blue") } }));
      expectSuccess(await stack.up());
    });

    it("powers the old VM off in an orderly way before the new one runs on another root", async () => {
      await write("green");
      await replace();
      expect(await textOf(join(scene.root("blue"), "var/power-offs.txt"))).toBe("off\n");
      expect(await textOf(join(scene.root("green"), "var/boots.txt"))).toContain((await theVm(stack)).vmName);
    });

    it("never runs two VMs on one root when it is forced with --replace", async () => {
      await replace("--replace", (await theVm(stack)).urn);
    });

    it("never runs two VMs on one root when the resource is tainted", async () => {
      await stack.mustRun("state", "taint", "--yes", (await theVm(stack)).urn);
      await replace();
    });

    it("is finished by the next up when the engine is killed after the old VM went", async () => {
      const before = await theVm(stack);
      const run = stack.start("up", "--yes", "--skip-preview", "--replace", before.urn);
      await expect
        .poll(async () => (await vmms(stack)).filter((pid) => pid !== before.pid), {
          timeout: 120_000,
          interval: 20,
        })
        .toHaveLength(1);
      await killWithProviders(stack, run);
      const watch = watchVmms(stack);
      expectSuccess(await upAfterKill(stack));
      const { most } = await watch.stop();
      const after = await theVm(stack);
      expect(most).toBe(1);
      expect(after.instance).not.toBe(before.instance);
      expect(await vmms(stack)).toEqual([after.pid]);
      expectSuccess(await stack.up("--expect-no-changes"));
      expectSuccess(await stack.destroy());
      expect(await stack.leftovers()).toEqual([]);
    });
  });

  it("makes the new VM first on request, under a name of its own", async () => {
    const options = "{ deleteBeforeReplace: false }";
    const program = (root: string) =>
      programOf({ vm: { args: scene.args(root, { readiness: { console: "^guest: ready" } }), options } });
    const stack = await scene.stack(program("blue"));
    expectSuccess(await stack.up());
    const before = await theVm(stack);
    await stack.writeProgram({ "index.js": program("red") });
    const watch = watchVmms(stack);
    expectSuccess(await stack.up());
    const { most } = await watch.stop();
    const after = await theVm(stack);
    expect(most).toBe(2);
    expect(after.vmName).not.toBe(before.vmName);
    expect(await vmms(stack)).toEqual([after.pid]);
    // The new guest was up while the old one still ran.
    const [booted, off] = await Promise.all([
      timeOf(join(scene.root("red"), "var/boots.txt")),
      timeOf(join(scene.root("blue"), "var/power-offs.txt")),
    ]);
    expect(booted).toBeLessThan(off);
    expectSuccess(await stack.destroy());
    expect(await stack.leftovers()).toEqual([]);
  });

  it("refuses to make the new VM first where the two would share a root, a name or a host port", async () => {
    const options = "{ deleteBeforeReplace: false }";
    const forwards = [{ hostPort: await forwardPort(), guestPort: 80 }];
    const args = scene.args("blue", { vmName: "one", portForwards: forwards, powerState: "stopped" });
    const stack = await scene.stack(programOf({ vm: { args, options } }));
    expectSuccess(await stack.up());
    const before = await theVm(stack);
    await stack.writeProgram({
      "index.js": programOf({ vm: { args: { ...args, memoryMiB: 200 }, options } }),
    });
    for (const result of [await stack.preview(), await stack.up()]) {
      expectFailure(result);
      expect(result.output).toContain("both are called one");
      expect(result.output).toContain("both have one root");
      expect(result.output).toContain(`both use host port ${forwards[0]?.hostPort}`);
    }
    expect(await theVm(stack)).toEqual(before);
    expectSuccess(await stack.destroy());
  });
});

/** A copy of the kernel that can be changed, with its configuration and modules where they are looked for. */
async function kernelCopy({ folder, kernel }: Scene): Promise<string> {
  const boot = join(folder, "kernel/boot");
  const copy = join(boot, basename(kernel));
  await mkdir(boot, { recursive: true });
  await copyFile(kernel, copy);
  const release = /^vmlinuz-(.*)$/.exec(basename(kernel))?.[1];
  if (release !== undefined) {
    await symlink(join(dirname(kernel), `config-${release}`), join(boot, `config-${release}`));
    await symlink(join(dirname(kernel), "../lib"), join(folder, "kernel/lib"));
  }
  return copy;
}

async function timeOf(path: string): Promise<number> {
  return (await stat(path)).mtimeMs;
}
