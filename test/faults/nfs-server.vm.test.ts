/** What becomes of a boot when its NFS server is away for a while, or for good. Servers of each kind: e2e/nfs-matrix.vm.test.ts. */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { check, create, delete as remove } from "../../provider/index.js";
import type { Values } from "../../provider/plan/fields.js";
import { makeGuestRoot } from "../lab/guest.js";
import { freePort, type NfsServer, startNfsServer } from "../lab/nfs.js";
import { onOnePort } from "../lab/one-port.js";
import { fastestKernel, whyNoWorld } from "./world.js";

const reason = whyNoWorld();
const title = `an NFS server under a boot${reason === undefined ? "" : ` (skipped: ${reason})`}`;

describe.skipIf(reason !== undefined)(title, () => {
  let folder: string;
  let server: NfsServer;
  let onePort: number;
  let endOnePort: () => Promise<void>;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "microvm-server-"));
    vi.stubEnv("XDG_STATE_HOME", join(folder, "state"));
    vi.stubEnv("XDG_RUNTIME_DIR", folder);
    vi.spyOn(process.stdout, "write").mockImplementation(() => true);
    await makeGuestRoot(join(folder, "root"));
    server = await startNfsServer({ exports: [{ path: join(folder, "root"), as: "/" }] });
    onePort = await freePort();
    endOnePort = await onOnePort({ address: "127.0.0.1", port: onePort }, server);
  });
  afterAll(async () => {
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
    await endOnePort();
    await server.kill();
    await rm(folder, { recursive: true, force: true });
  });

  const checked = async (vmName: string, ports: Values): Promise<Values> => {
    const { inputs, failures } = await check(
      {},
      {
        vmName,
        kernel: fastestKernel(),
        useNfsRoot: true,
        nfsServer: "127.0.0.1",
        ...ports,
        memoryMiB: 192,
        owner: {
          organization: "o",
          urn: `urn:pulumi:dev::s::microvm:index:MicroVm::${vmName}`,
          program: folder,
        },
      },
    );
    expect(failures).toEqual([]);
    return inputs;
  };
  /** When the guest's kernel speaks: before it has asked for its root. */
  const untilKernelSpeaks = async (vmName: string) => {
    const log = join(folder, "state/pulumi-microvm", vmName, "console.log");
    await expect
      .poll(() => readFile(log, "utf8").catch(() => ""), { timeout: 30_000, interval: 5 })
      .toContain("Linux version");
  };

  it("boots from nfs-ganesha with NFS and MOUNT on one port, also when the server stands still for 10 s meanwhile", async () => {
    const creating = create(await checked("waits", { nfsPort: onePort }));
    await untilKernelSpeaks("waits");
    process.kill(server.pid, "SIGSTOP");
    await delay(10_000);
    process.kill(server.pid, "SIGCONT");
    const { id, outs } = await creating;
    expect(outs).toMatchObject({ state: "running", rootEvidence: "proved" });
    // The guest's write is found beside the server.
    await expect
      .poll(() => readFile(join(folder, "root/var/boots.txt"), "utf8").catch(() => ""), { timeout: 30_000 })
      .toContain("waits: Linux");
    await remove(id, outs);
  });

  it("names the server when it is gone for good in the middle of a boot", async () => {
    const inputs = await checked("loses", { nfsPort: server.nfsPort, nfsMountPort: server.mountPort });
    const creating = expect(create(inputs)).rejects.toThrow(
      /nothing listens at 127\.0\.0\.1 port \d+ .*\[nfs-unreachable\]/,
    );
    await untilKernelSpeaks("loses");
    await server.kill();
    await creating;
  });
});
