/**
 * What the seed's document on NFS roots takes for granted: its server at port 7000 with its config.yaml, and NFS servers at the addresses and
 * ports that it names. In a network namespace (test/lab/namespace.ts), where all of them are ours.
 */

import { execFileSync } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { type Running, serve } from "../../provider/server/serve.js";
import { findBusybox } from "../../provider/host/initramfs/busybox.js";
import { cpioArchive } from "../../provider/host/initramfs/cpio.js";
import { endProcess, findByArgument } from "../../provider/host/process.js";
import { arrakisConfig, SEED_NFS_LINES } from "../lab/arrakis-config.js";
import { makeDiskImage, makeGuestRoot } from "../lab/guest.js";
import { addGuestAgent, whyNoGuestAgent } from "../lab/guest-agent.js";
import { whyNoNamespace } from "../lab/namespace.js";
import { freePort, type NfsServer, startNfsServer, whyNoNfsServer } from "../lab/nfs.js";
import { onOnePort } from "../lab/one-port.js";
import { isOnPath } from "../lab/programs.js";
import { mustRun } from "../lab/run-process.js";

const kernel = process.env["MICROVM_LAB_NFS_KERNEL"];

/** Why it cannot be had here, as the reason of a skipped test; undefined when it can. */
export function whyNoSeed(): string | undefined {
  if (kernel === undefined) return "MICROVM_LAB_NFS_KERNEL is not set";
  const missing = ["qemu-system-x86_64", "curl"].find((program) => !isOnPath(program));
  if (missing !== undefined) return `${missing} is not installed`;
  return whyNoGuestAgent() ?? whyNoNfsServer() ?? whyNoNamespace();
}

/** config.yaml as Arrakis ships it, with the seed's four lines; `hypervisor` is this project's own key. */
export const CONFIG = arrakisConfig(["hypervisor: qemu", "# NFS root configuration", ...SEED_NFS_LINES]);

export class Seed {
  #running: Running | undefined;

  private constructor(
    readonly folder: string,
    readonly servers: readonly NfsServer[],
    readonly endOnePort: () => Promise<void>,
  ) {}

  /** Starts the NFS servers, and the REST server with its config. */
  static async open(): Promise<Seed> {
    // The server of its example 2.
    execFileSync("ip", ["address", "add", "10.0.0.1/32", "dev", "lo"]);
    const folder = await mkdtemp(join(tmpdir(), "microvm-seed-"));
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
    const endOnePort = await onOnePort({ address: "127.0.0.1", port: 11111 }, agentfs);
    const exported = { path: join(folder, "exported"), as: "/exports/vm-root" };
    const other = { address: "10.0.0.1", nfsPort: 2049, mountPort: await freePort(), portMapper: true };
    const servers = [agentfs, await startNfsServer({ exports: [exported], ...other })];
    const seed = new Seed(folder, servers, endOnePort);
    await seed.start(CONFIG);
    return seed;
  }

  /** Starts the REST server anew. */
  async start(config: string): Promise<void> {
    await this.#running?.stop();
    const file = join(this.folder, "config.yaml");
    await writeFile(file, config);
    // Its host is every address of this machine: nobody else reaches this namespace.
    const options = { allowedHosts: [], insecure: true, shutdownTimeoutSeconds: 10 };
    this.#running = await serve({ config: file, ...options }, { write: () => undefined });
  }

  /** Ends everything, VMs included. */
  async close(): Promise<void> {
    await this.#running?.stop();
    for (const vmm of findByArgument(`${this.folder}/vm-state/`)) await endProcess(vmm, 0);
    await this.endOnePort();
    for (const server of this.servers) await server.stop();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** Runs a command as the document prints it, but for what stands there for a file. */
  async shell(command: string): Promise<Record<string, unknown>> {
    const files: Readonly<Record<string, string>> = {
      "/path/to/vmlinux.bin": "resources/bin/vmlinux.bin",
      "/path/to/initramfs.cpio.gz": "out/initramfs.cpio.gz",
      "/path/to/rootfs.img": "out/arrakis-guestrootfs-ext4.img",
    };
    const line = command.replaceAll(/\/path\/to\/[\w.]+/g, (path) => join(this.folder, files[path] ?? path));
    const answer = await mustRun("sh", ["-c", line.replace(/^curl/, "curl -sS")]);
    return JSON.parse(answer) as Record<string, unknown>;
  }

  /** What a guest says of its root and its disks. */
  async rootOf(vmName: string): Promise<unknown> {
    const cmd = `awk '$2 == "/"' /proc/mounts | tail -n 1; ls -1 /dev/vd*`;
    const body = JSON.stringify({ cmd }).replaceAll("'", `'\\''`);
    const { output } = await this.shell(
      `curl -X POST http://localhost:7000/v1/vms/${vmName}/cmd -H "Content-Type: application/json" -d '${body}'`,
    );
    return output;
  }
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
