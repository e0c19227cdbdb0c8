import * as pulumi from "@pulumi/pulumi";
import { afterEach, beforeAll, describe, expect, it } from "vitest";

import { downloadFiles, MicroVm, runCommand, uploadFiles } from "../../sdk/index.js";
import { StandIn } from "../provider/backends/arrakis/stand-in.js";

let server: StandIn | undefined;
afterEach(async () => await server?.close());

function mock(isPreview: boolean): Promise<void> {
  return pulumi.runtime.setMocks(
    {
      newResource: ({ name, inputs }) => ({
        id: `${name}/0123456789abcdef`,
        state: { vmName: name, ...inputs },
      }),
      call: ({ inputs }) => inputs,
    },
    "shop",
    "dev",
    isPreview,
  );
}

async function guest(): Promise<{ standIn: StandIn; vm: MicroVm }> {
  server = await StandIn.open({ token: "t0ken" });
  server.vms.set("web", "RUNNING");
  const backend = { type: "arrakis", url: server.url, token: "t0ken" } as const;
  return { standIn: server, vm: new MicroVm("web", { backend }) };
}

const valueOf = async <T>(output: pulumi.Output<T>): Promise<T> =>
  await new Promise((resolve) => void output.apply(resolve));

describe("what a program does in a guest", () => {
  beforeAll(async () => await mock(false));

  it("runs a command, whose failure is a value, and no secret", async () => {
    const { standIn, vm } = await guest();
    const result = runCommand(vm, "cat /proc/mounts");
    expect((await valueOf(result)).output).toContain("/srv/root / nfs");
    expect(await pulumi.isSecret(result)).toBe(false);
    expect(await valueOf(runCommand(vm, "exit 3"))).toEqual({ output: "", error: "exit status 3" });
    expect(standIn.asked.map(({ body }) => body)).toEqual([
      { cmd: "cat /proc/mounts", blocking: true },
      { cmd: "exit 3", blocking: true },
    ]);
  });

  it("writes and reads files", async () => {
    const { standIn, vm } = await guest();
    await valueOf(uploadFiles(vm, [{ path: "a.txt", content: pulumi.output("hi") }]));
    expect(standIn.asked.at(-1)?.body).toEqual({ files: [{ path: "a.txt", content: "hi" }] });
    const all = standIn.answers["download"]?.body as { files: object[] };
    all.files.splice(1);
    expect(await valueOf(downloadFiles(vm, ["a.txt"]))).toEqual([{ path: "a.txt", content: "hi" }]);
    expect(standIn.asked.at(-1)?.path).toBe("/v1/vms/web/files?paths=a.txt");
  });

  it("keeps the token a secret that the program did not call one", async () => {
    const { vm } = await guest();
    expect(await pulumi.isSecret(vm.backend)).toBe(true);
  });
});

describe("in a preview", () => {
  beforeAll(async () => await mock(true));

  it("asks no guest", async () => {
    const { standIn, vm } = await guest();
    let ran = false;
    runCommand(vm, "true").apply(() => (ran = true));
    await valueOf(vm.vmName);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect({ ran, asked: standIn.asked }).toEqual({ ran: false, asked: [] });
  });
});
