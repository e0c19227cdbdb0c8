/**
 * The seed's document on NFS roots, command by command: its examples, and its migration guide, as curl sends them to port 7000, with
 * guests that boot. What it names /path/to stands for a file of the lab's. In a network namespace, where its addresses and ports are ours.
 */

import { execFileSync } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Running, serve } from "../../provider/cli/restserver.js";
import { findBusybox } from "../../provider/host/initramfs/busybox.js";
import { cpioArchive } from "../../provider/host/initramfs/cpio.js";
import { endProcess, findByArgument } from "../../provider/host/process.js";
import { makeDiskImage, makeGuestRoot } from "../lab/guest.js";
import { addGuestAgent, whyNoGuestAgent } from "../lab/guest-agent.js";
import { isInNamespace, runInNamespace, whyNoNamespace } from "../lab/namespace.js";
import { freePort, type NfsServer, startNfsServer, whyNoNfsServer } from "../lab/nfs.js";
import { onOnePort } from "../lab/one-port.js";
import { isOnPath } from "../lab/programs.js";
import { mustRun } from "../lab/run-process.js";

const title = "the seed's commands";
const kernel = process.env["MICROVM_LAB_NFS_KERNEL"];
const reason =
  (kernel === undefined ? "MICROVM_LAB_NFS_KERNEL is not set" : undefined) ??
  ["qemu-system-x86_64", "curl"].find((program) => !isOnPath(program))?.concat(" is not installed") ??
  whyNoGuestAgent() ??
  whyNoNfsServer() ??
  whyNoNamespace();

/** config.yaml as Arrakis ships it, with the seed's four lines; `hypervisor` is this project's own key. */
const CONFIG = `hostservices:
  restserver:
    host: "0.0.0.0"
    port: "7000"
    state_dir: "./vm-state"
    bridge_name: "br0"
    bridge_ip: "10.20.1.1/24"
    bridge_subnet: "10.20.1.0/24"
    chv_bin: "./resources/bin/cloud-hypervisor"
    kernel: "./resources/bin/vmlinux.bin"
    rootfs: "./out/arrakis-guestrootfs-ext4.img"
    initramfs: "./out/initramfs.cpio.gz"
    port_forwards:
      - port: "5901"
        description: "gui"
      - port: "5736-5740"
        description: "code"
    stateful_size_in_mb: "2048"
    guest_mem_percentage: "30"
    hypervisor: qemu
    # NFS root configuration
    nfs_enabled: true
    nfs_server: "127.0.0.1"
    nfs_port: 11111
    nfs_path: "/"
  client:
    server_host: "127.0.0.1"
    server_port: "7000"
guestservices:
  codeserver:
    port: "4030"
  cmdserver:
    port: "4031"
`;

if (reason !== undefined) {
  describe(title, () => it.skip(`skipped: ${reason}`, () => undefined));
} else if (!isInNamespace()) {
  it(`${title}, in a network namespace of their own`, () => {
    expect(runInNamespace(__filename)).toBe(0);
  });
} else {
  describe(title, () => {
    let folder = "";
    let servers: NfsServer[] = [];
    let endOnePort: (() => Promise<void>) | undefined;
    let running: Running | undefined;

    beforeAll(async () => {
      // The server of its example 2.
      execFileSync("ip", ["address", "add", "10.0.0.1/32", "dev", "lo"]);
      folder = await mkdtemp(join(tmpdir(), "microvm-seed-"));
      await mkdir(join(folder, "run"), { mode: 0o700 });
      process.env["XDG_RUNTIME_DIR"] = join(folder, "run");
      for (const name of ["root", "exported"]) {
        await makeGuestRoot(join(folder, name));
        await addGuestAgent(join(folder, name));
      }
      await mkdir(join(folder, "resources/bin"), { recursive: true });
      await mkdir(join(folder, "out"));
      await copyFile(kernel ?? "", join(folder, "resources/bin/vmlinux.bin"));
      await makeDiskImage(join(folder, "root"), join(folder, "out/arrakis-guestrootfs-ext4.img"));
      await writeFile(join(folder, "out/initramfs.cpio.gz"), gzipSync(await initramfs()));
      const agentfs = await startNfsServer({ exports: [{ path: join(folder, "root"), as: "/" }] });
      endOnePort = await onOnePort({ address: "127.0.0.1", port: 11111 }, agentfs);
      const exported = { path: join(folder, "exported"), as: "/exports/vm-root" };
      const other = { address: "10.0.0.1", nfsPort: 2049, mountPort: await freePort(), portMapper: true };
      servers = [agentfs, await startNfsServer({ exports: [exported], ...other })];
      await start(CONFIG);
    });
    afterAll(async () => {
      await running?.stop();
      for (const vmm of findByArgument(`${folder}/vm-state/`)) await endProcess(vmm, 0);
      await endOnePort?.();
      for (const server of servers) await server.stop();
      await rm(folder, { recursive: true, force: true });
    });

    async function start(config: string): Promise<void> {
      await running?.stop();
      await writeFile(join(folder, "config.yaml"), config);
      // Its host is every address of this machine: nobody else reaches this namespace.
      const options = { allowedHosts: [], insecure: true, shutdownTimeoutSeconds: 10 };
      const log = { write: () => undefined };
      running = await serve({ config: join(folder, "config.yaml"), ...options }, log);
    }

    /** Runs a command as the document prints it, but for what stands there for a file. */
    async function shell(command: string): Promise<Record<string, unknown>> {
      const files: Readonly<Record<string, string>> = {
        "/path/to/vmlinux.bin": join(folder, "resources/bin/vmlinux.bin"),
        "/path/to/initramfs.cpio.gz": join(folder, "out/initramfs.cpio.gz"),
        "/path/to/rootfs.img": join(folder, "out/arrakis-guestrootfs-ext4.img"),
      };
      const line = command.replaceAll(/\/path\/to\/[\w.]+/g, (path) => files[path] ?? path);
      return JSON.parse(await mustRun("sh", ["-c", line.replace(/^curl/, "curl -sS")])) as Record<
        string,
        unknown
      >;
    }

    /** What a guest says of its root. */
    async function rootOf(vmName: string): Promise<unknown> {
      const body = JSON.stringify({ cmd: "awk '$2 == \"/\"' /proc/mounts | tail -n 1; ls -1 /dev/vd*" });
      const { output } = await shell(
        `curl -X POST http://localhost:7000/v1/vms/${vmName}/cmd -H "Content-Type: application/json" -d '${body.replaceAll("'", `'\\''`)}'`,
      );
      return output;
    }

    async function remove(vmName: string): Promise<void> {
      expect(await shell(`curl -X DELETE http://localhost:7000/v1/vms/${vmName}`)).toMatchObject({
        success: true,
      });
    }

    it("Option 2: settings in the request", async () => {
      expect(
        await shell(`curl -X POST http://localhost:7000/v1/vms \\
  -H "Content-Type: application/json" \\
  -d '{
    "vmName": "my-nfs-vm",
    "kernel": "/path/to/vmlinux.bin",
    "initramfs": "/path/to/initramfs.cpio.gz",
    "useNfsRoot": true,
    "nfsServer": "127.0.0.1",
    "nfsPort": 11111,
    "nfsPath": "/"
  }'`),
      ).toMatchObject({ vmName: "my-nfs-vm", status: "RUNNING", rootEvidence: "proved" });
      // Only the stateful disk is attached.
      expect(await rootOf("my-nfs-vm")).toMatch(/^10\.0\.2\.2:\/ \/ nfs .*port=11111.*\n\/dev\/vda\n$/);
      await remove("my-nfs-vm");
    });

    it("Example 1: the config's defaults", async () => {
      expect(
        await shell(`curl -X POST http://localhost:7000/v1/vms \\
  -H "Content-Type: application/json" \\
  -d '{
    "vmName": "test-vm"
  }'`),
      ).toMatchObject({ vmName: "test-vm", status: "RUNNING", rootEvidence: "proved" });
      expect(await rootOf("test-vm")).toMatch(/^10\.0\.2\.2:\/ \/ nfs .*port=11111/);
      expect(await readFile(join(folder, "root/var/boots.txt"), "utf8")).toContain("test-vm: Linux");
    });

    it("Example 2: another server than the config's", async () => {
      expect(
        await shell(`curl -X POST http://localhost:7000/v1/vms \\
  -H "Content-Type: application/json" \\
  -d '{
    "vmName": "agentfs-vm",
    "useNfsRoot": true,
    "nfsServer": "10.0.0.1",
    "nfsPort": 2049,
    "nfsPath": "/exports/vm-root"
  }'`),
      ).toMatchObject({ vmName: "agentfs-vm", status: "RUNNING", rootEvidence: "proved" });
      expect(await rootOf("agentfs-vm")).toMatch(/^10\.0\.0\.1:\/exports\/vm-root \/ nfs /);
      expect(await readFile(join(folder, "exported/var/boots.txt"), "utf8")).toContain("agentfs-vm: Linux");
      await remove("agentfs-vm");
    });

    it("Example 3: a disk where the config has NFS", async () => {
      expect(
        await shell(`curl -X POST http://localhost:7000/v1/vms \\
  -H "Content-Type: application/json" \\
  -d '{
    "vmName": "local-disk-vm",
    "useNfsRoot": false,
    "rootfs": "/path/to/rootfs.img"
  }'`),
      ).toMatchObject({ vmName: "local-disk-vm", status: "RUNNING", rootEvidence: "proved" });
      expect(await rootOf("local-disk-vm")).toMatch(/^overlay \/ overlay .*\n\/dev\/vda\n\/dev\/vdb\n$/);
      await remove("local-disk-vm");
    });

    it("the rules of validation", async () => {
      await start(CONFIG.replaceAll(/ +nfs_.*\n/g, ""));
      const post = `curl -X POST http://localhost:7000/v1/vms -H "Content-Type: application/json" -d `;
      expect(await shell(`${post}'{ "useNfsRoot": true, "nfsPort": 11111 }'`)).toMatchObject(
        refusal("NFS server address is required"),
      );
      expect(await shell(`${post}'{ "useNfsRoot": true, "nfsServer": "127.0.0.1" }'`)).toMatchObject(
        refusal("NFS server port is required"),
      );
    });

    it("the migration guide: from a disk to NFS", async () => {
      // The server of the test before: without nfs_enabled in its config. It has found the VM of example 1 again.
      expect(await shell("curl http://localhost:7000/v1/vms")).toMatchObject({
        vms: [{ vmName: "test-vm", status: "RUNNING" }],
      });
      expect(
        await shell(`curl -X POST http://localhost:7000/v1/vms \\
  -H "Content-Type: application/json" \\
  -d '{
    "vmName": "my-vm",
    "rootfs": "/path/to/rootfs.img"
  }'`),
      ).toMatchObject({ vmName: "my-vm", status: "RUNNING" });
      expect(await rootOf("my-vm")).toMatch(/ \/ overlay /);
      const after = `curl -X POST http://localhost:7000/v1/vms \\
  -H "Content-Type: application/json" \\
  -d '{
    "vmName": "my-vm",
    "useNfsRoot": true,
    "nfsServer": "127.0.0.1",
    "nfsPort": 11111
  }'`;
      expect(await shell(after)).toMatchObject({ error: { code: "name-taken" } });
      await remove("my-vm");
      expect(await shell(after)).toMatchObject({
        vmName: "my-vm",
        status: "RUNNING",
        rootEvidence: "proved",
      });
      expect(await rootOf("my-vm")).toMatch(/ \/ nfs /);
      expect(await shell("curl -X DELETE http://localhost:7000/v1/vms")).toEqual({ success: true });
      expect(await shell("curl http://localhost:7000/v1/vms")).toEqual({ vms: [] });
    });
  });
}

function refusal(text: string): object {
  return { error: { message: expect.stringContaining(text) as string } };
}

/** An initramfs that does as Arrakis' does: a read-only disk under a writable one; and that knows NFS roots. */
async function initramfs(): Promise<Buffer> {
  const { path } = await findBusybox("x86_64");
  const file = { type: "file", mode: 0o755 } as const;
  const folders = ["bin", "dev", "newroot", "proc", "ro", "rw"];
  return cpioArchive([
    ...folders.map((folder) => ({ type: "directory", path: folder, mode: 0o755 }) as const),
    { ...file, path: "bin/busybox", content: await readFile(path) },
    { ...file, path: "init", content: Buffer.from(INIT) },
  ]);
}

const INIT = `#!/bin/busybox sh
set -e
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs devtmpfs /dev
nfsroot=$(/bin/busybox sed -n 's/.* nfsroot=\\([^ ]*\\).*/\\1/p' /proc/cmdline)
if [ -n "$nfsroot" ]; then
  /bin/busybox mount -t nfs -o "vers=3,\${nfsroot#*,}" "\${nfsroot%%,*}" /newroot
else
  /bin/busybox mount -t ext4 -o ro /dev/vda /ro
  /bin/busybox mount -t ext4 /dev/vdb /rw
  /bin/busybox mkdir -p /rw/upper /rw/work
  /bin/busybox mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work overlay /newroot
fi
echo "Switching root to /newroot"
/bin/busybox umount /proc
exec /bin/busybox switch_root /newroot /sbin/init
`;
