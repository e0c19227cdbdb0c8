import { spawnSync } from "node:child_process";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { readServerConfig } from "../../../provider/server/server-config.js";
import { readConfigFile } from "../../../provider/spec/config-file.js";
import { isOnPath } from "../../lab/programs.js";

const FOLDER = resolve(__dirname, "../../../examples/restserver");
const UNIT = join(FOLDER, "microvm-restserver.service");
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
});
