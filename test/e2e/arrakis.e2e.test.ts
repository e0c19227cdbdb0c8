import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Running, serve } from "../../provider/server/serve.js";
import type { Stack } from "../lab/engine.js";
import { addGuestAgent, GUEST_AGENT_PORT, whyNoGuestAgent } from "../lab/guest-agent.js";
import { type Args, expectFailure, expectSuccess, Scene, suiteName, theVm, whyNoGuest } from "./scene.js";

const reason = whyNoGuest() ?? whyNoGuestAgent();
const TOKEN = "t0ken-that-nobody-may-see";

describe.skipIf(reason !== undefined)(suiteName("a VM on a server", reason), () => {
  let scene: Scene;
  let server: Running;
  let stack: Stack;
  const said: string[] = [];

  beforeAll(async () => {
    scene = await Scene.open({ blue: "complete", green: "complete" });
    for (const root of ["blue", "green"]) await addGuestAgent(scene.root(root));
    const run = join(scene.folder, "run");
    await mkdir(run, { mode: 0o700 });
    process.env["XDG_RUNTIME_DIR"] = run;
    await writeFile(join(scene.folder, "token"), TOKEN, { mode: 0o600 });
    const config = join(scene.folder, "config.yaml");
    const kernel = process.env["MICROVM_LAB_NFS_KERNEL"] ?? scene.kernel;
    const restserver = {
      host: "127.0.0.1",
      state_dir: "./state",
      hypervisor: "qemu",
      kernel,
      token_file: "./token",
    };
    const guestservices = { cmdserver: { port: String(GUEST_AGENT_PORT) } };
    await writeFile(config, JSON.stringify({ hostservices: { restserver }, guestservices }));
    const options = { config, port: 0, allowedHosts: [], insecure: false, shutdownTimeoutSeconds: 0 };
    server = await serve(options, { write: () => undefined });
    stack = await scene.stack(programOf(argsOf("blue")));
  });
  afterAll(async () => {
    await stack?.destroy();
    await server?.stop();
    await scene?.close();
  });

  const argsOf = (root: string, more: Args = {}): Args => ({
    backend: { type: "arrakis", url: server.url, token: TOKEN },
    useNfsRoot: true,
    nfsServer: "127.0.0.1",
    nfsPort: scene.server.nfsPort,
    nfsMountPort: scene.server.mountPort,
    nfsPath: scene.root(root),
    ...more,
  });
  const list = async () => {
    const answer = await fetch(`${server.url}/v1/vms`, { headers: { authorization: `Bearer ${TOKEN}` } });
    return ((await answer.json()) as { vms?: { vmName: string; status: string }[] }).vms ?? [];
  };
  const change = async (args: Args) => await stack.writeProgram({ "index.js": programOf(args) });

  it("is previewed as the server would boot it", async () => {
    const preview = await stack.preview();
    expectSuccess(preview);
    said.push(preview.output);
    expect(preview.output).toMatch(/vm-\w+: kernel command line: console=ttyS0 root=\/dev\/nfs nfsroot=/);
    expect(await list()).toEqual([]);
  });

  it("is refused in the preview for what the server refuses, or a wrong token", async () => {
    await change(argsOf("blue", { nfsPath: join(scene.root("blue"), "nowhere") }));
    const wrongPath = await stack.preview();
    expectFailure(wrongPath);
    expect(wrongPath.output).toMatch(/nfsServer: .*denies.*so says the server at .*\[nfs-unreachable\]/);
    await change(argsOf("blue", { backend: { type: "arrakis", url: server.url, token: "wr0ng" } }));
    const refused = await stack.preview();
    expectFailure(refused);
    expect(refused.output).toContain("backend.token:");
    said.push(refused.output);
    await change(argsOf("blue"));
  });

  it("has a guest that has proved its root, in which programs run commands", async () => {
    const up = await stack.up();
    expectSuccess(up);
    said.push(up.output);
    const vm = await theVm(stack);
    expect(vm.outputs).toMatchObject({ state: "running", rootEvidence: "proved" });
    expect(vm.outputs["cmdline"]).toContain(`:${scene.root("blue")},`);
    for (const absent of ["consoleLog", "stateDirectory", "hostId", "kernelSha256", "instance"]) {
      expect(vm.outputs).not.toHaveProperty(absent);
    }
    expect(await stack.outputs()).toMatchObject({ mounts: expect.stringContaining(scene.root("blue")) });
    const same = await stack.previewSteps();
    expect(same.map(({ op }) => op)).not.toContain("update");
  });

  it("keeps its token in no clear text, neither in the state nor in what is printed", async () => {
    expect(JSON.stringify(await stack.export())).not.toContain(TOKEN);
    expect(said.join("\n")).not.toContain(TOKEN);
    expect(said.join("\n")).not.toContain("wr0ng");
  });

  it("is paused in place, and goes on", async () => {
    const { id } = await theVm(stack);
    for (const powerState of ["paused", "running"]) {
      await change(argsOf("blue", { powerState }));
      expectSuccess(await stack.up());
      expect((await list()).map(({ status }) => status)).toEqual([powerState.toUpperCase()]);
    }
    expect(await theVm(stack)).toMatchObject({ id, outputs: { rootEvidence: "proved" } });
  });

  it("is replaced for another root, the old one first; a refresh changes nothing", async () => {
    const before = await theVm(stack);
    await change(argsOf("green"));
    const up = await stack.up();
    expectSuccess(up);
    const after = await theVm(stack);
    expect(after.vmName).toBe(before.vmName);
    expect(after.instance).not.toBe(before.instance);
    expect(after.outputs["rootEvidence"]).toBe("proved");
    expect(await list()).toHaveLength(1);
    const refresh = await stack.refresh();
    expectSuccess(refresh);
    expect(refresh.output).toMatch(/\d unchanged/);
  });

  it("shows as gone when it was removed there, and is deleted all the same", async () => {
    const { vmName } = await theVm(stack);
    const headers = { authorization: `Bearer ${TOKEN}` };
    await fetch(`${server.url}/v1/vms/${vmName}`, { method: "DELETE", headers });
    const steps = await stack.previewSteps();
    expect(steps.find(({ urn }) => urn.includes("MicroVm::"))).toMatchObject({
      replaceReasons: expect.arrayContaining(["observed"]) as unknown,
    });
    expectSuccess(await stack.destroy());
    expect(await list()).toEqual([]);
  });
});

/** A program with one VM, and what its guest says of its mounts. */
function programOf(args: Args): string {
  return [
    'const pulumi = require("@pulumi/pulumi");',
    'const { MicroVm, runCommand } = require("pulumi-microvm");',
    `const vm = new MicroVm("vm", ${JSON.stringify(args)});`,
    "exports.id = vm.id;",
    args["powerState"] === "paused"
      ? ""
      : 'exports.mounts = runCommand(vm, "cat /proc/mounts").apply(({ output }) => output);',
  ].join("\n");
}
