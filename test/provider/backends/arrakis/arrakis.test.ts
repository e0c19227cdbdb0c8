import { readdir } from "node:fs/promises";
import { join } from "node:path";

import { afterEach, describe, expect, it } from "vitest";

import { arrakis } from "../../../../provider/backends/arrakis/arrakis.js";
import type { CreateRequest, ServerVm } from "../../../../provider/backends/backend.js";
import { MicroVmError } from "../../../../provider/errors.js";
import { type Asking, asking, forget } from "./asking.js";
import { NFS_MOUNTS, StandIn, type StandInOptions } from "./stand-in.js";

const DISK_MOUNTS = "rootfs / rootfs rw 0 0\noverlay / overlay rw,lowerdir=/ro,upperdir=/rw 0 0\n";

let server: StandIn | undefined;
const askings: Asking[] = [];

afterEach(async () => {
  await server?.close();
  await Promise.all(askings.splice(0).map(forget));
});

/** A server, its back end, and a request. */
async function scene(options: StandInOptions = {}, changes: Partial<CreateRequest<ServerVm>> = {}) {
  server = await StandIn.open(options);
  const asked = await asking(changes);
  askings.push(asked);
  const { url } = server;
  const token = options.token === undefined ? {} : { token: options.token };
  const backend = arrakis({ type: "arrakis", url, ...token });
  const { vmName, instance, stateDirectory } = asked.request;
  return { standIn: server, backend, ...asked, reference: { vmName, instance, stateDirectory } };
}

async function failureOf(work: Promise<unknown>): Promise<MicroVmError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(MicroVmError);
  return error as MicroVmError;
}

const notes = async (stateDirectory: string) => await readdir(join(stateDirectory, ".asked"));

describe("create on a server", () => {
  it("looks for the name, asks for the VM, and believes the guest's own mounts alone", async () => {
    const { standIn, backend, request } = await scene();
    expect(await backend.create(request)).toEqual({
      state: "running",
      rootEvidence: "proved",
      guestIp: "10.20.1.2",
    });
    expect(standIn.done).toEqual(["GET /health", "GET /vms", "POST /vms", "POST /vms/web/cmd"]);
    expect(standIn.asked[2]?.body).toEqual(request.start);
  });

  it("notes what it asks for until the engine has saved it", async () => {
    const { backend, request, stateDirectory } = await scene();
    await backend.create(request);
    expect(await notes(stateDirectory)).toHaveLength(1);
    await backend.remove({ ...request, reference: request, shutdownTimeoutSeconds: 1 });
    expect(await notes(stateDirectory)).toEqual([]);
  });

  it("takes no name that it has just given, and says so at once", async () => {
    const { backend, request } = await scene();
    await backend.create(request);
    expect((await failureOf(backend.create(request))).text).toContain("has just made the VM web");
  });

  it("never adopts a VM of that name: Arrakis would boot it and ignore the request", async () => {
    const { standIn, backend, request, stateDirectory } = await scene();
    standIn.vms.set("web", "STOPPED");
    expect(await failureOf(backend.create(request))).toMatchObject({ code: "name-taken", input: "vmName" });
    expect(standIn.done).toEqual(["GET /health", "GET /vms"]);
    expect(await notes(stateDirectory)).toEqual([]);
  });

  it("sends nothing that the server does not say it knows, whatever the preview left out", async () => {
    const start = { vmName: "web", useNfsRoot: false, kernelArgs: ["quiet"] };
    const { standIn, backend, request } = await scene({}, { start });
    expect(await failureOf(backend.create(request))).toMatchObject({ input: "kernelArgs" });
    expect(standIn.done).toEqual(["GET /health"]);
  });

  it("finds out a server that ignored the NFS root, and removes the VM", async () => {
    const { standIn, backend, request } = await scene({ recording: "upstream" });
    standIn.mounts = DISK_MOUNTS;
    const error = await failureOf(backend.create(request));
    expect(error).toMatchObject({ code: "boot-failed", input: "useNfsRoot" });
    expect(error.text).toContain("the guest's root is overlay (overlay), not 10.20.1.1:/srv/root");
    expect(standIn.vms.size).toBe(0);
  });

  it.each([
    ["another server", NFS_MOUNTS.replaceAll("10.20.1.1", "10.9.9.9")],
    ["another port", NFS_MOUNTS.replace("port=11111", "port=2049")],
    ["no port, which is 2049", NFS_MOUNTS.replace(",port=11111", "")],
    ["another export", NFS_MOUNTS.replace("/srv/root", "/srv/other")],
    ["an NFS mount that a disk covers", `${NFS_MOUNTS}/dev/vda / ext4 ro 0 0\n`],
  ])("finds out %s", async (_, mounts) => {
    const { standIn, backend, request } = await scene();
    standIn.mounts = mounts;
    expect((await failureOf(backend.create(request))).code).toBe("boot-failed");
    expect(standIn.vms.size).toBe(0);
  });

  it("leaves a wrong VM of a name that the person chose: it may be someone else's", async () => {
    const { standIn, backend, request } = await scene({}, { isNameGenerated: false });
    standIn.mounts = DISK_MOUNTS;
    const error = await failureOf(backend.create(request));
    expect(error.text).toContain("is left at");
    expect([...standIn.vms.keys()]).toEqual(["web"]);
  });

  it("takes a disk root for one only when the guest does not run over NFS", async () => {
    const start = { vmName: "web", useNfsRoot: false };
    const { standIn, backend, request } = await scene({}, { start });
    expect((await failureOf(backend.create(request))).text).toContain("not a disk");
    standIn.mounts = DISK_MOUNTS;
    expect(await backend.create(request)).toMatchObject({ rootEvidence: "proved" });
  });

  it("says that the root is unverified when the guest cannot be asked", async () => {
    const { standIn, backend, request, notices } = await scene();
    standIn.mounts = undefined;
    expect(await backend.create(request)).toMatchObject({ state: "running", rootEvidence: "unverified" });
    expect(notices.join("\n")).toMatch(/warning: .* could not be asked .*connection refused/);
  });

  it("takes that for a failure with readiness.required, and removes the VM", async () => {
    const settings = {
      powerState: "running",
      readiness: { timeoutSeconds: 1, required: true },
      shutdownTimeoutSeconds: 1,
    } as const;
    const { standIn, backend, request } = await scene({}, { settings });
    standIn.mounts = undefined;
    expect(await failureOf(backend.create(request))).toMatchObject({
      code: "boot-timeout",
      input: "readiness.required",
    });
    expect(standIn.vms.size).toBe(0);
  });

  it("waits for the guest's command server", async () => {
    const { standIn, backend, request } = await scene();
    standIn.mounts = undefined;
    let questions = 0;
    standIn.before = ({ path }) => {
      if (path.endsWith("/cmd") && ++questions === 2) standIn.mounts = NFS_MOUNTS;
    };
    expect(await backend.create(request)).toMatchObject({ rootEvidence: "proved" });
    expect(questions).toBe(3);
  });

  it("removes what a failed start has left in the list", async () => {
    const { standIn, backend, request } = await scene();
    standIn.failsStart = true;
    const error = await failureOf(backend.create(request));
    expect(error.code).toBe("server-failed");
    expect(error.text).toContain("Cannot load the kernel into memory");
    expect(standIn.vms.size).toBe(0);
  });

  it("finishes when the answer was lost and the VM is there", async () => {
    const { standIn, backend, request } = await scene();
    standIn.before = ({ method, path }) => (method === "POST" && path === "/v1/vms" ? "reset" : undefined);
    expect(await backend.create(request)).toMatchObject({ state: "running", rootEvidence: "proved" });
    expect(standIn.done.filter((done) => done === "POST /vms")).toHaveLength(1);
  });

  it("removes the VM when the answer was lost and its guest cannot be asked", async () => {
    const { standIn, backend, request } = await scene();
    standIn.mounts = undefined;
    standIn.before = ({ method, path }) => (method === "POST" && path === "/v1/vms" ? "reset" : undefined);
    expect((await failureOf(backend.create(request))).code).toBe("server-failed");
    expect(standIn.vms.size).toBe(0);
  });

  it("fails when the answer was lost and the VM does not come", async () => {
    const { standIn, backend, request } = await scene();
    standIn.before = ({ method, path }) => {
      if (method !== "POST" || path !== "/v1/vms") return undefined;
      standIn.vms.clear();
      return "reset";
    };
    expect((await failureOf(backend.create(request))).code).toBe("server-failed");
  }, 20_000);

  it("pauses or stops the VM once its root is proved", async () => {
    const settings = {
      powerState: "paused",
      readiness: { timeoutSeconds: 2 },
      shutdownTimeoutSeconds: 1,
    } as const;
    const { standIn, backend, request } = await scene({}, { settings });
    expect(await backend.create(request)).toMatchObject({ state: "paused", rootEvidence: "proved" });
    expect(standIn.vms.get("web")).toBe("PAUSED");
    const off = { ...request, vmName: "off", start: { ...request.start, vmName: "off" } };
    const stopped = { ...off, settings: { ...settings, powerState: "stopped" } } as const;
    expect(await backend.create(stopped)).toMatchObject({ state: "stopped", rootEvidence: "none" });
    expect(standIn.vms.get("off")).toBe("STOPPED");
  });

  it.each(["GET /health", "GET /vms", "POST /vms", "POST /vms/web/cmd"])(
    "leaves nothing when the engine dies at %s",
    async (step) => {
      const ended = new AbortController();
      const { standIn, backend, request, stateDirectory } = await scene({}, { signal: ended.signal });
      standIn.before = ({ method, path }) => {
        if (`${method} ${path.replace("/v1", "")}` === step) ended.abort();
      };
      expect((await failureOf(backend.create(request))).code).toBe("interrupted");
      expect(standIn.vms.size).toBe(0);
      expect(await notes(stateDirectory)).toEqual([]);
    },
  );
});

describe("a server of this project", () => {
  const features = ["useNfsRoot", "snapshots"];
  const told = {
    instance: "aaaabbbbccccdddd",
    rootEvidence: "proved",
    cmdline: "console=ttyS0 root=/dev/nfs nfsroot=10.20.1.1:/srv/root,port=11111",
  };

  it("names the instance and has seen the root itself", async () => {
    const { standIn, backend, request } = await scene({ features });
    standIn.ofEach = told;
    expect(await backend.create(request)).toEqual({ state: "running", guestIp: "10.20.1.2", ...told });
    expect(standIn.done).toEqual(["GET /health", "GET /vms", "POST /vms"]);
  });

  it("has nothing of this resource when the instance is another", async () => {
    const { standIn, backend, reference } = await scene({ features });
    standIn.vms.set("web", "RUNNING");
    standIn.ofEach = told;
    expect(await backend.observe(reference)).toEqual({ state: "gone" });
    await backend.remove({
      reference,
      shutdownTimeoutSeconds: 1,
      signal: new AbortController().signal,
      notice: () => undefined,
    });
    expect([...standIn.vms.keys()]).toEqual(["web"]);
  });
});

describe("a VM on a server", () => {
  it("is observed in the list, and gone when it is not there", async () => {
    const { standIn, backend, reference } = await scene();
    expect(await backend.observe(reference)).toEqual({ state: "gone" });
    for (const [status, seen] of [
      ["RUNNING", { state: "running" }],
      ["PAUSED", { state: "paused" }],
      // A guest that is off shows nothing, as on the local back ends.
      ["STOPPED", { state: "stopped", rootEvidence: "none" }],
    ] as const) {
      standIn.vms.set("web", status);
      expect(await backend.observe(reference)).toEqual({ ...seen, guestIp: "10.20.1.2" });
    }
    standIn.ofEach = { status: "UNREACHABLE" };
    expect((await failureOf(backend.observe(reference))).text).toContain('is "UNREACHABLE"');
    expect(new Set(standIn.done)).toEqual(new Set(["GET /vms"]));
  });

  it("is paused, resumed, stopped, and booted again by another POST, since Arrakis' PATCH cannot", async () => {
    const { standIn, backend, request, reference } = await scene();
    await backend.create(request);
    const to = async (powerState: "running" | "paused" | "stopped") =>
      await backend.update({ ...request, reference, settings: { ...request.settings, powerState } });
    expect(await to("paused")).toMatchObject({ state: "paused" });
    expect(await to("running")).toEqual({ state: "running", guestIp: "10.20.1.2" });
    expect(await to("stopped")).toMatchObject({ state: "stopped", rootEvidence: "none" });
    const posts = () => standIn.done.filter((done) => done === "POST /vms").length;
    expect(posts()).toBe(1);
    expect(await to("running")).toMatchObject({ state: "running", rootEvidence: "proved" });
    expect(posts()).toBe(2);
    expect((await to("running")).rootEvidence).toBeUndefined();
  });

  it("is removed once; to remove it again succeeds", async () => {
    const { standIn, backend, request, reference } = await scene();
    await backend.create(request);
    const removal = { ...request, reference, shutdownTimeoutSeconds: 1 };
    await backend.remove(removal);
    await backend.remove(removal);
    expect(standIn.vms.size).toBe(0);
    expect(standIn.done.filter((done) => done.startsWith("DELETE"))).toHaveLength(1);
  });

  it("takes a snapshot under the name that it is asked for", async () => {
    const { standIn, backend, request, reference } = await scene();
    await backend.create(request);
    const { signal, notice, owner } = request;
    const id = "web-0123456789abcdef";
    const { takenAt } = await backend.takeSnapshot({ id, reference, owner, signal, notice });
    expect(Date.parse(takenAt)).toBeGreaterThan(0);
    expect(standIn.asked.at(-1)).toMatchObject({ path: "/v1/vms/web/snapshots", body: { snapshotId: id } });
  });
});

describe("access", () => {
  it("sends the token, and shows it nowhere", async () => {
    const token = "s3cr3t-t0ken";
    const { standIn, backend, request, notices } = await scene({ token });
    await backend.create(request);
    expect(new Set(standIn.asked.map(({ authorization }) => authorization))).toEqual(
      new Set([`Bearer ${token}`]),
    );
    const wrong = arrakis({ type: "arrakis", url: standIn.url, token: "wr0ng-t0ken" });
    const error = await failureOf(wrong.observe(request));
    expect(error.text).toContain("status 401");
    for (const text of [...notices, error.message, error.stack ?? ""]) {
      expect(text).not.toContain(token);
      expect(text).not.toContain("wr0ng-t0ken");
    }
  });

  it("asks again for what changes nothing when the connection broke, and only that", async () => {
    const { standIn, backend, reference } = await scene();
    let broken = 0;
    standIn.before = () => (++broken <= 2 ? "reset" : undefined);
    expect(await backend.observe(reference)).toEqual({ state: "gone" });
    standIn.before = () => "reset";
    expect((await failureOf(backend.observe(reference))).code).toBe("server-failed");
    expect(standIn.asked).toHaveLength(6);
  });
});
