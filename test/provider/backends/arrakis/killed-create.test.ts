import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";

import { afterEach, describe, expect, it } from "vitest";

import { arrakis } from "../../../../provider/backends/arrakis/arrakis.js";
import { MicroVmError } from "../../../../provider/errors.js";
import { type Asking, asking, forget } from "./asking.js";
import { StandIn } from "./stand-in.js";

let server: StandIn | undefined;
let first: Asking | undefined;
afterEach(async () => {
  await server?.close();
  if (first !== undefined) await forget(first);
});

/** A create in a process of its own, which is killed when the server has a request in hand. */
async function killedAt(step: string, isNameGenerated = true) {
  server = await StandIn.open();
  const standIn = server;
  first = await asking({ isNameGenerated });
  const { stateDirectory } = first;
  const reached = new Promise<void>((resolve) => {
    standIn.before = async ({ method, path }) => {
      if (`${method} ${path.replace("/v1", "")}` !== step) return undefined;
      resolve();
      await ended;
      return "reset";
    };
  });
  const child = createElsewhere(standIn.url, stateDirectory, isNameGenerated);
  const ended = once(child, "exit");
  await Promise.race([
    reached,
    ended.then(() => {
      throw new Error("the create ended before it was killed");
    }),
  ]);
  child.kill("SIGKILL");
  await ended;
  standIn.before = () => undefined;
  const again = await asking({ isNameGenerated }, stateDirectory);
  return { standIn, backend: arrakis({ type: "arrakis", url: standIn.url }), ...again };
}

function createElsewhere(url: string, stateDirectory: string, isNameGenerated: boolean): ChildProcess {
  const script = join(__dirname, "creating-process.ts");
  return spawn(process.execPath, ["--import", "tsx", script, url, stateDirectory, String(isNameGenerated)], {
    stdio: ["ignore", "ignore", "inherit"],
  });
}

describe("a create on a server that was killed", () => {
  it.each(["GET /vms", "POST /vms", "POST /vms/web/cmd"])(
    "at %s leaves at most a VM that the next create finds and makes anew",
    async (step) => {
      const { standIn, backend, request, notices } = await killedAt(step);
      const isLeft = standIn.vms.size === 1;
      expect(isLeft).toBe(step !== "GET /vms");
      expect(await backend.create(request)).toMatchObject({ state: "running", rootEvidence: "proved" });
      expect(standIn.vms.size).toBe(1);
      expect(notices.some((line) => line.includes("interrupted create"))).toBe(isLeft);
    },
  );

  it("does not make a VM ours that the person named: it may be someone else's", async () => {
    const { standIn, backend, request } = await killedAt("POST /vms/web/cmd", false);
    const error: unknown = await backend.create(request).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(MicroVmError);
    expect((error as MicroVmError).text).toContain("perhaps from an earlier create of this resource");
    expect(standIn.done).not.toContain("DELETE /vms/web");
  });

  it("is no reason to take a VM that the engine has saved", async () => {
    server = await StandIn.open();
    const backend = arrakis({ type: "arrakis", url: server.url });
    first = await asking();
    await backend.create(first.request);
    const { settle } = await import("../../../../provider/host/intent.js");
    const { stateDirectory, vmName, instance } = first.request;
    await settle(stateDirectory, server.url, vmName, instance);
    const { request } = await asking({}, stateDirectory);
    await expect(backend.create(request)).rejects.toMatchObject({ code: "name-taken" });
    expect(server.vms.size).toBe(1);
  });
});
