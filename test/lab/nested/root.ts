/** The nested machine's root file system, from this host's own files: programs with their libraries, modules, and the built package. */

import { existsSync } from "node:fs";
import { chmod, copyFile, cp, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import ts from "typescript";
import { findBusybox } from "../../../provider/host/initramfs/busybox.js";
import { findProgram } from "../../../provider/host/program.js";
import { findModules } from "../../../provider/host/initramfs/modules.js";
import { inspectKernel } from "../../../provider/preflight/kernel/inspect.js";
import { copyProgram } from "../copy-program.js";
import { isOnPath } from "../programs.js";
import { mustRun } from "../run-process.js";

const REPOSITORY = resolve(__dirname, "../../..");

/** What goes into the root. */
export interface RootParts {
  /** Absolute path of the machine's kernel, its modules beside it. */
  readonly kernel: string;
  /** Files of this host that are put into `/lab`, by the name that they get there. */
  readonly files: Readonly<Record<string, string>>;
  /** Absolute path of the Cloud Hypervisor program. */
  readonly cloudHypervisor: string;
  /** What the machine runs: a shell command line. Its exit code is the machine's. */
  readonly command: string;
}

/** Programs of this host, by Debian package. */
const PROGRAMS = {
  iproute2: ["ip", "ss", "bridge"],
  nftables: ["nft"],
  kmod: ["modprobe"],
  e2fsprogs: ["mkfs.ext4", "e2fsck", "resize2fs", "debugfs"],
  "nfs-ganesha": ["ganesha.nfsd"],
  // That of busybox fills holes.
  coreutils: ["cp"],
  rpcbind: ["rpcbind"],
  "util-linux": ["flock", "prlimit", "setpriv", "unshare", "mount", "umount"],
};
/** Taken along where this host has them. */
const OPTIONAL_PROGRAMS = ["agentfs", "curl", "ch-remote", "passt", "tcpdump", "strace", "gdb"];

/** Libraries that ganesha loads without ldd knowing: what serves a directory, and names of users. */
const PLUGINS = ["ganesha/libfsalvfs.so", "libnfsidmap/nsswitch.so"];

/** Files that the C library and ganesha read. */
const SETTINGS = [
  "/etc/netconfig",
  "/etc/nsswitch.conf",
  "/etc/protocols",
  "/etc/services",
  "/etc/rpc",
  "/etc/mke2fs.conf",
];

/** Makes the root in an empty folder; needs a package that is built. */
export async function makeRoot(root: string, parts: RootParts): Promise<void> {
  for (const folder of ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/local/bin"])
    await makeFolder(root, folder);
  for (const folder of ["bin", "sbin", "lib", "lib64"]) await symlink(`usr/${folder}`, join(root, folder));
  for (const folder of [
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "out",
    "lab",
    "busybox",
    "etc",
    "var/lib/nfs",
  ]) {
    await makeFolder(root, folder);
  }
  await symlink("../run", join(root, "var/run"));
  await addPrograms(root, parts.cloudHypervisor);
  await addSettings(root);
  await addKernel(root, parts.kernel);
  await addPackage(root);
  await copyFile(join(__dirname, "init"), join(root, "sbin/init"));
  await chmod(join(root, "sbin/init"), 0o755);
  for (const [name, path] of Object.entries(parts.files)) {
    await rm(join(root, "lab", name), { force: true });
    await cp(path, join(root, "lab", name), { recursive: true });
  }
  await writeFile(join(root, "lab/command"), `${parts.command}\n`);
}

async function makeFolder(root: string, folder: string): Promise<void> {
  await mkdir(join(root, folder), { recursive: true });
}

async function addPrograms(root: string, cloudHypervisor: string): Promise<void> {
  const { path: busybox } = await findBusybox("x86_64");
  await copyProgram(root, busybox, "/usr/bin/busybox");
  // Not busybox' shell: it runs its own `ip` and `mount` before those on PATH.
  await copyProgram(root, "/bin/sh", "/usr/bin/sh");
  await symlink("busybox", join(root, "usr/bin/env"));
  await copyProgram(root, process.execPath, "/usr/bin/node");
  await copyProgram(root, cloudHypervisor, "/usr/local/bin/cloud-hypervisor");
  for (const [name, programs] of Object.entries(PROGRAMS)) {
    for (const program of programs) {
      await copyProgram(root, findProgram(program, `install the package ${name}`), `/usr/sbin/${program}`);
    }
  }
  // Beside Cloud Hypervisor's own program, as its build leaves it, where the person says, or on PATH.
  const { AGENTFS: agentFs = "", PATH } = process.env;
  const searched = [dirname(cloudHypervisor), ...(agentFs === "" ? [] : [dirname(agentFs)]), PATH].join(":");
  for (const program of OPTIONAL_PROGRAMS.filter((name) => isOnPath(name, searched))) {
    await copyProgram(root, findProgram(program, "", { PATH: searched }), `/usr/sbin/${program}`);
  }
  for (const plugin of PLUGINS) {
    const path = ["/usr/lib/x86_64-linux-gnu", "/usr/lib"]
      .map((folder) => join(folder, plugin))
      .find(existsSync);
    if (path === undefined)
      throw new Error(`${plugin} is not there; install the packages nfs-ganesha and nfs-ganesha-vfs`);
    await copyProgram(root, path, path);
  }
}

async function addSettings(root: string): Promise<void> {
  for (const path of SETTINGS) await copyFile(path, join(root, path));
  await writeFile(
    join(root, "etc/passwd"),
    "root:x:0:0:root:/root:/bin/sh\n_rpc:x:100:65534::/run/rpcbind:/bin/false\n",
  );
  await writeFile(join(root, "etc/group"), "root:x:0:\nnogroup:x:65534:\n");
  await writeFile(join(root, "etc/hosts"), "127.0.0.1 localhost\n");
  await symlink("/proc/self/mounts", join(root, "etc/mtab"));
}

/** The machine's own kernel as it is installed, which guests may boot as well: `/lab/kernel` unless another is given. */
async function addKernel(root: string, kernel: string): Promise<void> {
  await makeFolder(root, "boot");
  for (const file of [basename(kernel), basename(kernel).replace("vmlinuz", "config")]) {
    await copyFile(join(dirname(kernel), file), join(root, "boot", file));
  }
  await symlink(`/boot/${basename(kernel)}`, join(root, "lab/kernel"));
  const facts = await inspectKernel(kernel);
  const { path } = await findModules(facts);
  await cp(path, join(root, "lib/modules", basename(path)), {
    recursive: true,
    filter: (source) => !/\/(build|source)$/.test(source),
  });
  await mustRun("depmod", ["--basedir", root, basename(path)]);
}

/** What is read of package-lock.json. */
interface LockFile {
  /** By path below the repository; "" is the repository itself. */
  readonly packages: Readonly<Record<string, { readonly dev?: boolean; readonly link?: boolean }>>;
}

/** The package as it is installed, in `/package`, and the lab beside it, compiled. */
async function addPackage(root: string): Promise<void> {
  const target = join(root, "package");
  await mkdir(join(target, "node_modules"), { recursive: true });
  const lock = JSON.parse(await readFile(join(REPOSITORY, "package-lock.json"), "utf8")) as LockFile;
  for (const [path, { dev, link }] of Object.entries(lock.packages)) {
    if (path === "" || dev === true || link === true) continue;
    await cp(join(REPOSITORY, path), join(target, path), { recursive: true });
  }
  await cp(join(REPOSITORY, "dist"), join(target, "dist"), { recursive: true });
  await copyFile(join(REPOSITORY, "package.json"), join(target, "package.json"));
  await symlink("..", join(target, "node_modules/pulumi-microvm"));
  for (const folder of ["provider", "sdk"]) await symlink(`dist/${folder}`, join(target, folder));
  await compile(join(REPOSITORY, "test/lab"), join(target, "test/lab"));
}

/** Copies a folder; TypeScript becomes JavaScript, unchecked. */
async function compile(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const source = join(from, entry.name);
    if (entry.isDirectory()) await compile(source, join(to, entry.name));
    else if (entry.name.endsWith(".ts")) {
      const compilerOptions = {
        module: ts.ModuleKind.CommonJS,
        target: ts.ScriptTarget.ES2022,
        esModuleInterop: true,
      };
      const { outputText } = ts.transpileModule(await readFile(source, "utf8"), {
        compilerOptions,
        fileName: source,
      });
      await writeFile(join(to, entry.name.replace(/\.ts$/, ".js")), outputText);
    } else await copyFile(source, join(to, entry.name));
  }
}
