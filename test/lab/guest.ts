/** Guests for demo and tests: a root directory for an NFS export, and the same as a disk image. */

import { existsSync } from "node:fs";
import { chmod, copyFile, cp, mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { findBusybox } from "../../provider/host/initramfs/busybox.js";
import { mustRun } from "./run-process.js";

/**
 * What the guest's `/sbin/init` is. `complete`: busybox init, which prints lines that begin with `guest: `, writes `/var/boots.txt`,
 * answers HTTP on port 80 and goes off on the ACPI power button. `silent`: runs and prints nothing. `exits`: prints
 * `guest: giving up` and exits with 1, so the kernel panics. `wrong-format`: is no program. `missing`: there is
 * neither an init nor a shell. `deaf`: as `complete`, but without an answer to the power button.
 */
export type GuestInit = "complete" | "deaf" | "silent" | "exits" | "wrong-format" | "missing";

/** Makes a guest's root in a directory, which is created; its own files are replaced. */
export async function makeGuestRoot(directory: string, init: GuestInit = "complete"): Promise<void> {
  const folders = ["bin", "sbin", "usr/bin", "usr/sbin", "dev", "proc", "sys", "run", "tmp", "var", "data"];
  for (const folder of folders) await mkdir(join(directory, folder), { recursive: true });
  await makeConsole(directory);
  if (init === "missing") return;

  const { path: busybox } = await findBusybox("x86_64");
  await copyFile(busybox, join(directory, "bin/busybox"));
  await chmod(join(directory, "bin/busybox"), 0o755);
  const applets = (await mustRun(busybox, ["--list-full"])).split("\n").filter((path) => path !== "");
  await Promise.all(applets.filter((path) => path !== "sbin/init").map((path) => link(directory, path)));
  await cp(join(__dirname, "guest"), directory, { recursive: true });
  if (init === "deaf") await rm(join(directory, "etc/acpi"), { recursive: true });
  await rm(join(directory, "sbin/init"), { force: true });
  switch (init) {
    case "complete":
    case "deaf":
      return link(directory, "sbin/init");
    case "silent":
      return script(directory, "exec sleep 86400");
    case "exits":
      return script(directory, 'echo "guest: giving up"\nexit 1');
    case "wrong-format":
      return writeFile(join(directory, "sbin/init"), "\x7fELF of nothing\n", { mode: 0o755 });
    default:
      return init satisfies never;
  }
}

/** Makes an ext4 image, sparse, `sizeMiB` large, that holds a directory's tree; needs e2fsprogs, but no rights. */
export async function makeDiskImage(directory: string, image: string, sizeMiB = 64): Promise<void> {
  await mustRun("mkfs.ext4", ["-q", "-F", "-d", directory, image, `${sizeMiB}M`]);
}

/** The kernel opens /dev/console for init before anything is mounted on /dev; only root can make it. */
async function makeConsole(directory: string): Promise<void> {
  const node = join(directory, "dev/console");
  if (process.getuid?.() === 0 && !existsSync(node))
    await mustRun("mknod", ["-m", "600", node, "c", "5", "1"]);
}

async function link(directory: string, path: string): Promise<void> {
  const place = join(directory, path);
  if (path === "bin/busybox") return;
  await rm(place, { force: true });
  await symlink(relative(dirname(place), join(directory, "bin/busybox")), place);
}

async function script(directory: string, body: string): Promise<void> {
  await writeFile(join(directory, "sbin/init"), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
}
