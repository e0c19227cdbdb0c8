import { mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { whyNoBed } from "../lab/bed.js";
import { Stack, whyNoEngine } from "../lab/engine.js";
import { isOnPath } from "../lab/programs.js";
import { mustRun } from "../lab/run-process.js";

const EXAMPLE = resolve(__dirname, "../../examples/debian-root");

/** `1`: a root is made, from this host's apt sources; or a folder in which make-root has made one. */
const asked = process.env["MICROVM_DEBIAN_ROOT"] ?? "";

const noAgentFs =
  process.env["AGENTFS"] || isOnPath("agentfs")
    ? undefined
    : "AGENTFS is not set, and agentfs is not on PATH";

function whyNot(): string | undefined {
  if (asked === "") return "takes minutes: npm run test:debian";
  if (!process.env["MICROVM_LAB_NFS_KERNEL"]) return "MICROVM_LAB_NFS_KERNEL is not set";
  if (!isOnPath("mmdebstrap")) return "mmdebstrap is not installed";
  return whyNoBed() ?? whyNoEngine();
}

/** What the guest does as a part of its boot, before it asks for a login. */
const WRITES = `#!/bin/sh
set -eu
echo "lab: host name $(cat /proc/sys/kernel/hostname)"
echo "lab: $(tail -n 1 /etc/resolv.conf)"
apt-get update --print-uris | cut -d "'" -f 2 | sed -n '/InRelease$/s/^/lab: apt /p'
apt-get install -y -q /root/lab.deb >/root/apt.log 2>&1 || sed 's/^/lab: it says: /' /root/apt.log
echo "lab: done with $(dpkg-query --show lab)"
`;

const UNIT = `[Unit]
Description=What the lab's guest does
After=name-servers.service
Before=serial-getty@ttyS0.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-writes
ExecStop=/bin/sh -c 'echo the last words >/var/last-words'
StandardOutput=journal+console
[Install]
WantedBy=multi-user.target
`;

/** A package with one file, and a script that is run when it is installed. */
async function makePackage(folder: string, path: string): Promise<void> {
  const tree = join(folder, "lab");
  await mkdir(join(tree, "DEBIAN"), { recursive: true });
  await mkdir(join(tree, "usr/share/lab"), { recursive: true });
  await writeFile(join(tree, "usr/share/lab/hello"), "hello\n");
  const control = "Package: lab\nVersion: 1.0\nArchitecture: all\nMaintainer: lab\nDescription: of the lab\n";
  await writeFile(join(tree, "DEBIAN/control"), control);
  await writeFile(join(tree, "DEBIAN/postinst"), "#!/bin/sh\necho configured >/var/lib/lab\n", {
    mode: 0o755,
  });
  await mustRun("dpkg-deb", ["--root-owner-group", "--build", tree, path]);
}

const reason = whyNot();
describe.skipIf(reason !== undefined)(
  `examples/debian-root${reason === undefined ? "" : ` (${reason})`}`,
  () => {
    let folder: string;
    let base: string;

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "lab-debian-"));
      base = join(folder, "debian");
      if (asked === "1") await mustRun(join(EXAMPLE, "make-root"), [base]);
      else await mustRun("cp", ["--archive", asked, base]);
      await makePackage(folder, join(base, "root/lab.deb"));
      await writeFile(join(base, "usr/local/sbin/lab-writes"), WRITES, { mode: 0o755 });
      await writeFile(join(base, "etc/systemd/system/lab-writes.service"), UNIT);
      const wants = join(base, "etc/systemd/system/multi-user.target.wants");
      await mkdir(wants, { recursive: true });
      await symlink("../lab-writes.service", join(wants, "lab-writes.service"));
    }, 900_000);
    afterAll(async () => {
      await rm(folder, { recursive: true, force: true });
    });

    // AgentFS goes first: it leaves the base as it is.
    describe.each([
      { server: "agentfs", why: noAgentFs },
      { server: "nfs-ganesha", why: undefined },
    ])("served by $server", ({ server, why }) => {
      it.skipIf(why !== undefined)(
        `boots to a login prompt, installs a package, and loses nothing that it closed before its power-off${why === undefined ? "" : ` (${why})`}`,
        async () => {
          const stack = await Stack.create({
            from: EXAMPLE,
            program: {},
            config: { base, server, "microvm:kernel": process.env["MICROVM_LAB_NFS_KERNEL"] ?? "" },
          });
          try {
            const up = await stack.up();
            expect(up.exitCode, up.output).toBe(0);
            const outputs = await stack.outputs();
            const log = () => readFile(String(outputs["consoleLog"]), "utf8");
            // The journal's lines may come to the console after the login prompt.
            await expect.poll(log, { timeout: 60_000 }).toMatch(/lab: done with lab\s+1\.0\s/);
            const text = await log();
            expect(text).toContain(`lab: host name ${String(outputs["vmName"])}`);
            expect(text).toContain("lab: nameserver 10.0.2.3");
            const sources = [...text.matchAll(/lab: apt (\S+)/g)].map(([, uri]) => uri);
            expect(sources).not.toEqual([]);
            expect(await sourcesOfThisHost()).toEqual(expect.arrayContaining(sources));

            await stack.setConfig("powerState", "stopped");
            const stop = await stack.up();
            expect(stop.exitCode, stop.output).toBe(0);
            expect(await log()).toContain("reboot: Power down");

            if (server === "agentfs") {
              const { changes } = (await stack.outputs())["changes"] as {
                changes: Record<string, unknown>[];
              };
              const of = (path: string) => changes.find((change) => change["path"] === path);
              expect(of("/usr/share/lab/hello")).toMatchObject({
                change: "added",
                kind: "file",
                sizeBytes: 6,
              });
              expect(of("/var/lib/lab")).toMatchObject({ change: "added", sizeBytes: 11 });
              expect(of("/var/lib/dpkg/status")).toMatchObject({ change: "modified" });
              expect(of("/var/last-words")).toMatchObject({ change: "added", sizeBytes: 15 });
              await expect(stat(join(base, "usr/share/lab/hello"))).rejects.toThrow("ENOENT");
            } else {
              expect(await readFile(join(base, "usr/share/lab/hello"), "utf8")).toBe("hello\n");
              expect(await readFile(join(base, "var/lib/dpkg/status"), "utf8")).toContain("Package: lab\n");
              expect(await readFile(join(base, "var/last-words"), "utf8")).toBe("the last words\n");
            }
            expect((await stack.destroy()).exitCode).toBe(0);
            expect(await stack.leftovers()).toEqual([]);
          } finally {
            await stack.dispose();
          }
        },
        900_000,
      );
    });
  },
);

/** What apt would ask for, without asking. */
async function sourcesOfThisHost(): Promise<string[]> {
  const text = await mustRun("apt-get", ["update", "--print-uris"]);
  return [...text.matchAll(/^'([^']+)'/gm)].map(([, uri = ""]) => uri);
}
