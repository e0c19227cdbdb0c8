import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { runDoctor } from "../../../provider/cli/doctor.js";
import type { Check } from "../../../provider/preflight/diagnosis.js";
import { makeGuestRoot } from "../../lab/guest.js";
import { freePort, startNfsServer, whyNoNfsServer } from "../../lab/nfs.js";
import { isOnPath } from "../../lab/programs.js";
import { bzImage, unpackedKernel } from "../preflight/kernel/images.js";
import { runMicrovm } from "./microvm-command.js";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "doctor-"));
  vi.stubEnv("XDG_RUNTIME_DIR", folder);
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

/** What the doctor says, by subject, and its exit status. */
async function doctor(options: { kernel?: string; nfs?: string } = {}): Promise<{
  status: number;
  of: (subject: string) => Check | undefined;
  checks: readonly Check[];
}> {
  const lines: string[] = [];
  const status = await runDoctor(
    { stateDirectory: join(folder, "state"), print: (line) => lines.push(line) },
    { ...options, json: true },
  );
  const { checks, healthy } = JSON.parse(lines.join("\n")) as { checks: Check[]; healthy: boolean };
  expect(healthy).toBe(status === 0);
  expect(checks.some((check) => check.status === "failure")).toBe(status === 1);
  return { status, checks, of: (subject) => checks.find((check) => check.subject === subject) };
}

describe("microvm doctor", () => {
  it("fails without QEMU and another back end, and says how to come by it, as a program", async () => {
    const env = { PATH: folder, MICROVM_QEMU: "", CLOUD_HYPERVISOR: join(folder, "absent") };
    const outcome = await runMicrovm(["--state-directory", join(folder, "state"), "doctor"], env);
    expect(outcome.stdout).toMatch(/^failure +QEMU +qemu-system-x86_64 is not on PATH\. Install it/m);
    expect(outcome.stdout).toMatch(/^failure +Cloud Hypervisor +CLOUD_HYPERVISOR|absent is no program/m);
    expect(outcome.stdout).toMatch(/^pass: \d+, warning: \d+, failure: \d+$/m);
    expect(outcome.status).toBe(1);
  });

  const noQemu = isOnPath("qemu-system-x86_64") ? "" : " (qemu-system-x86_64 is not installed)";
  it.skipIf(noQemu !== "")(`takes one back end that works for enough${noQemu}`, async () => {
    vi.stubEnv("CLOUD_HYPERVISOR", join(folder, "absent"));
    vi.stubEnv("AGENTFS", join(folder, "absent"));
    const { of, status } = await doctor();
    expect(of("AgentFs")).toMatchObject({ status: "warning", code: "host-unusable" });
    expect(of("QEMU")).toMatchObject({ status: "pass" });
    expect(of("Cloud Hypervisor")).toMatchObject({ status: "warning", code: "host-unusable" });
    expect(status).toBe(0);
  });

  it("gives each warning and failure a remedy, and makes no state directory", async () => {
    const { checks } = await doctor({ nfs: `127.0.0.1:${await freePort()}:/`, kernel: "/nonexistent" });
    for (const check of checks.filter(({ status }) => status !== "pass")) {
      expect(check, check.subject).toMatchObject({ remedy: expect.stringMatching(/\w/) as unknown });
    }
    expect(await readdir(folder)).not.toContain("state");
  });

  it("fails for a server that refuses, and names the input", async () => {
    const port = await freePort();
    const { of, status } = await doctor({ nfs: `127.0.0.1:${port}:/` });
    expect(of("NFS root")).toMatchObject({
      status: "failure",
      code: "nfs-unreachable",
      text: `nfsPort: nothing listens at 127.0.0.1 port ${port} (nfsd) (connection refused). Start the NFS server, or give the TCP port that it listens on`,
    });
    expect(status).toBe(1);
  });

  const noServer = whyNoNfsServer();
  it.skipIf(noServer !== undefined)(
    `finds a real server's root good, and one without init bad${noServer === undefined ? "" : ` (${noServer})`}`,
    async () => {
      const [root, empty] = [join(folder, "root"), join(folder, "empty")];
      await mkdir(root);
      await mkdir(empty);
      await makeGuestRoot(root);
      const server = await startNfsServer({ exports: [{ path: root }, { path: empty }] });
      try {
        const at = `127.0.0.1:${server.nfsPort}+${server.mountPort}`;
        expect((await doctor({ nfs: `${at}:${root}` })).of("NFS root")).toEqual({
          subject: "NFS root",
          status: "pass",
          text: `127.0.0.1:${root} can be mounted, and /sbin/init in it can run`,
        });
        expect((await doctor({ nfs: `${at}:${empty}` })).of("NFS root")).toMatchObject({
          status: "failure",
          code: "root-unusable",
        });
      } finally {
        await server.stop();
      }
    },
  );

  it("fails for a kernel that boots no NFS root, and only warns of one that does not tell", async () => {
    const kernel = join(folder, "vmlinuz");
    await writeFile(kernel, bzImage("6.1.1-bare", gzipSync(unpackedKernel("6.1.1-bare", "CONFIG_NET=y\n"))));
    expect((await doctor({ kernel })).of("Kernel")).toMatchObject({
      status: "failure",
      text: expect.stringContaining("CONFIG_NFS_FS is not set: needed to mount NFS") as unknown,
    });
    await writeFile(kernel, bzImage("6.1.1-mute", gzipSync(unpackedKernel("6.1.1-mute"))));
    expect((await doctor({ kernel })).of("Kernel")).toMatchObject({ status: "warning" });
  });

  it("fails for a state directory that others can write", async () => {
    await mkdir(join(folder, "state"));
    await chmod(join(folder, "state"), 0o777);
    const { of, status } = await doctor();
    expect(of("State directory")).toMatchObject({
      status: "failure",
      code: "state-directory",
      text: expect.stringContaining("chmod 700") as unknown,
    });
    expect(status).toBe(1);
  });

  it("fails for a state directory that cannot be made", async () => {
    await writeFile(join(folder, "state"), "");
    const { of } = await doctor();
    expect(of("State directory")).toMatchObject({
      status: "failure",
      text: expect.stringContaining("is no folder") as unknown,
    });
  });

  it("refuses an NFS root that is not named as it should be", async () => {
    await expect(doctor({ nfs: "nas:/exports" })).rejects.toThrow("--nfs: expected HOST:PORT:PATH");
    await expect(doctor({ nfs: "nas:70000:/" })).rejects.toThrow("expected HOST:PORT:PATH");
  });
});
