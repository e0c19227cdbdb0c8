import { spawnSync } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { readServerConfig } from "../../../provider/server/server-config.js";
import { readConfigFile } from "../../../provider/spec/config-file.js";
import { isOnPath } from "../../lab/programs.js";

const FOLDER = resolve(__dirname, "../../../examples/restserver");
const UNIT = join(FOLDER, "microvm-restserver.service");
const DROP_IN = join(FOLDER, "cloud-hypervisor.conf");
const analyze = (...words: string[]) => spawnSync("systemd-analyze", words, { encoding: "utf8" });

describe("examples/restserver", () => {
  it("has a config.yaml that the server understands, and a resource as its configFile", async () => {
    const file = join(FOLDER, "config.yaml");
    expect(await readServerConfig(file, 16_000)).toMatchObject({
      host: "127.0.0.1",
      port: 7000,
      stateDirectory: "/var/lib/microvm-restserver",
      hypervisor: "qemu",
      memoryMiB: 4800,
      guestPorts: [{ guestPort: 80, description: "web" }],
      boot: { useNfsRoot: true, nfsServer: "127.0.0.1", nfsPort: 11111, nfsPath: "/" },
      unused: [],
    });
    expect(await readConfigFile(file)).toMatchObject({ useNfsRoot: true, nfsPort: 11111 });
  });

  it.skipIf(!isOnPath("systemd-analyze"))(
    "has a unit without mistakes that is closed to the host (systemd-analyze)",
    () => {
      // It tells of other units of this machine, too.
      expect(analyze("verify", UNIT).stderr).not.toContain("microvm-restserver.service");
      // systemd 250 and later judge a file.
      const { stdout, stderr } = analyze("security", "--offline=true", UNIT);
      if (stderr.includes("unrecognized option")) return;
      expect(stdout).toMatch(/Overall exposure level for microvm-restserver\.service: [12]\.\d/);
    },
  );

  it.skipIf(!isOnPath("systemd-analyze"))(
    "has a drop-in for Cloud Hypervisor without mistakes (systemd-analyze)",
    async () => {
      const folder = await mkdtemp(join(tmpdir(), "microvm-unit-"));
      try {
        const unit = join(folder, "microvm-restserver.service");
        await mkdir(`${unit}.d`);
        await copyFile(UNIT, unit);
        await copyFile(DROP_IN, join(`${unit}.d`, "cloud-hypervisor.conf"));
        expect(analyze("verify", unit).stderr).not.toContain(folder);
        const { stdout, stderr } = analyze("security", "--offline=true", unit);
        if (stderr.includes("unrecognized option")) return;
        expect(stdout).toMatch(/✗ \S*CAP_NET_ADMIN/);
        expect(stdout).toMatch(/Overall exposure level for microvm-restserver\.service: [12]\.\d/);
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
  );

  it("keeps what VMs need while the server stops or is started anew, and what it boots them from", async () => {
    const unit = await readFile(UNIT, "utf8");
    // systemd.kill(5): otherwise all processes of the unit end with the server.
    expect(unit).toMatch(/^KillMode=process$/m);
    // systemd.exec(5): otherwise the sockets of running VMs go with the server; /usr/lib/modules is hidden; /tmp goes.
    expect(unit).toMatch(/^RuntimeDirectoryPreserve=yes$/m);
    expect(unit).not.toMatch(/^(ProtectKernelModules|PrivateTmp|PrivateDevices|PrivateNetwork)=/m);
    // Ports are forwarded from 127.0.0.1 by a file of /proc/sys.
    expect(await readFile(DROP_IN, "utf8")).toMatch(/^ProtectKernelTunables=no$/m);
  });
});
