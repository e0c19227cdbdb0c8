import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Args,
  expectFailure,
  expectSuccess,
  programOf,
  Scene,
  suiteName,
  theVm,
  vmms,
  whyNoGuest,
} from "./scene.js";

const reason = whyNoGuest();

describe.skipIf(reason !== undefined)(suiteName("inputs on their way through the engine", reason), () => {
  let scene: Scene;
  beforeAll(async () => {
    scene = await Scene.open({ blue: "complete" });
  });
  afterAll(() => scene?.close());

  it("are refused by name, with what was expected and found, before anything is made", async () => {
    const stack = await scene.stack("");
    const cases: readonly { change: Args; told: readonly RegExp[] }[] = [
      {
        change: {
          nfsPort: 70000,
          nfsSever: "10.0.0.5",
          nfsPath: "/a b",
          kernelArgs: ["a\nroot=/dev/sda"],
          readiness: { timeoutSeconds: 0 },
        },
        told: [
          /property nfsPort value \{70000\} has a problem: nfsPort: expected .*, got 70000/,
          /nfsSever: unknown input; did you mean "nfsServer"\?/,
          /nfsPath: expected a path of printable ASCII/,
          /kernelArgs\.0: expected a word/,
          /readiness\.timeoutSeconds: expected an integer from 1/,
        ],
      },
      { change: { kernel: "/nowhere/vmlinuz" }, told: [/kernel: .*\/nowhere\/vmlinuz/] },
      { change: { kernel: "/etc/passwd" }, told: [/kernel: .*\/etc\/passwd/] },
    ];
    for (const { change, told } of cases) {
      await stack.writeProgram({ "index.js": programOf({ vm: { args: scene.args("blue", change) } }) });
      const preview = await stack.preview();
      expectFailure(preview);
      for (const pattern of told) expect(preview.output).toMatch(pattern);
    }
    const up = await stack.up();
    expectFailure(up);
    expect(up.output).toMatch(cases.at(-1)?.told[0] ?? /^$/);
    expect(await stack.leftovers()).toEqual([]);
    expect(await stack.resources()).toEqual([]);
  });

  it("come from the stack configuration where the program leaves them out, and a secret one is never shown", async () => {
    const { kernel, nfsServer, nfsPort, nfsMountPort, nfsPath } = scene.args("blue");
    const stack = await scene.stack(programWith('{ useNfsRoot: true, powerState: "stopped" }'), {
      config: {
        "microvm:kernel": String(kernel),
        "microvm:nfsServer": String(nfsServer),
        "microvm:nfsPort": String(nfsPort),
        "microvm:nfsMountPort": String(nfsMountPort),
        "microvm:nfsPath": String(nfsPath),
        "microvm:kernelArgs": '["panic=-1","quietly=yes"]',
        "microvm:memoryMiB": "192",
      },
    });
    expectSuccess(await stack.up());
    const vm = await theVm(stack);
    expect(vm.inputs).toMatchObject({ nfsServer, nfsPort, nfsMountPort, nfsPath, memoryMiB: 192 });
    expect(vm.inputs["cmdline"]).toMatch(/ panic=-1 quietly=yes$/);

    await stack.mustRun("config", "set", "--secret", "microvm:nfsServer", "hidden-host.example");
    const fromConfig = await stack.preview();
    await stack.writeProgram({
      "index.js": programWith('{ useNfsRoot: true, nfsServer: pulumi.secret("hidden-host.example") }'),
    });
    for (const result of [fromConfig, await stack.up()]) {
      expectFailure(result);
      expect(result.output).toMatch(/nfsServer: a secret cannot be used here/);
      expect(result.output).not.toContain("hidden-host");
    }
    expect(JSON.stringify(await stack.export())).not.toContain("hidden-host");
    expectSuccess(await stack.destroy());
  });

  it("may be outputs of what is not made yet: the preview leaves open what follows from them, and the up boots", async () => {
    const { nfsServer: _, ...args } = scene.args("blue");
    const stack = await scene.stack(
      programOf(
        {},
        `class Address extends pulumi.dynamic.Resource {
  constructor(name, props) {
    super({ create: async (inputs) => ({ id: "address", outs: { address: inputs.host } }) }, name, { address: undefined, ...props });
  }
}
const server = new Address("server", { host: "127.0.0.1" });
new MicroVm("vm", { ...${JSON.stringify(args)}, nfsServer: server.address });`,
      ),
    );
    const preview = await stack.preview();
    expectSuccess(preview);
    expect(preview.output).toMatch(/cmdline *: \[unknown\]/);
    expect(preview.output).toMatch(/nfsServer *: \[unknown\]/);
    expectSuccess(await stack.up());
    const vm = await theVm(stack);
    expect(vm.outputs).toMatchObject({ nfsServer: "127.0.0.1", rootEvidence: "proved" });
    expect(await vmms(stack)).toEqual([vm.pid]);
    expectSuccess(await stack.up("--expect-no-changes"));
    expectSuccess(await stack.destroy());
    expect(await stack.leftovers()).toEqual([]);
  });
});

/** A program with one VM whose arguments are given as JavaScript. */
function programWith(args: string): string {
  return programOf({}, `new MicroVm("vm", ${args});`);
}
