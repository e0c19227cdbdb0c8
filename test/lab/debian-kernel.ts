/** The kernel that people have: the stock one of the distribution, unpacked beside the system, never installed. */

import { constants } from "node:fs";
import { access, chmod, readdir, readFile, rm } from "node:fs/promises";
import { release } from "node:os";
import { join } from "node:path";
import { cached } from "./cache.js";
import { mustRun, runProcess } from "./run-process.js";

const META_PACKAGE = "linux-image-cloud-amd64";

/**
 * Absolute path of a stock x86-64 kernel image with its `config-*` and modules beside it: `$MICROVM_LAB_KERNEL`, else on Debian the current
 * cloud kernel (downloaded once, 30 MB), else the running system's. Throws with the remedy when there is none.
 */
export async function stockKernel(): Promise<string> {
  const given = process.env["MICROVM_LAB_KERNEL"];
  if (given !== undefined && given !== "") {
    if (await isReadable(given)) return given;
    throw new Error(
      `MICROVM_LAB_KERNEL: ${given} is not a readable file. Name a kernel image that you may read.`,
    );
  }
  if (process.arch !== "x64" || process.platform !== "linux") {
    throw new Error(
      `The lab's guest is x86-64 Linux and this machine is ${process.platform} ${process.arch}. Run it on an x86-64 Linux machine.`,
    );
  }
  return (await isDebian()) ? debianKernel() : runningKernel();
}

async function debianKernel(): Promise<string> {
  const name = await packageName();
  const version = /Version: (\S+)/.exec(await mustRun("apt-cache", ["show", "--no-all-versions", name]))?.[1];
  const folder = await cached(`${name}_${version?.replaceAll(":", "%") ?? ""}`, async (unfinished) => {
    // apt downloads as another user.
    await chmod(unfinished, 0o755);
    await mustRun("apt-get", ["download", name], { cwd: unfinished });
    const files = await readdir(unfinished);
    const archive = files.find((file) => file.endsWith(".deb"));
    if (archive === undefined) throw new Error(`apt-get download ${name} left no .deb file`);
    await mustRun("dpkg", ["-x", join(unfinished, archive), unfinished]);
    await rm(join(unfinished, archive));
  });
  const image = (await readdir(join(folder, "boot"))).find((file) => file.startsWith("vmlinuz-"));
  if (image === undefined)
    throw new Error(`${folder}/boot holds no vmlinuz; remove ${folder} and run again.`);
  return join(folder, "boot", image);
}

/** The package that the meta package stands for now; a system without package lists (a container image) gets them, if we may. */
async function packageName(): Promise<string> {
  const ask = async (): Promise<string | undefined> => {
    const { stdout } = await runProcess("apt-cache", ["depends", META_PACKAGE]);
    return /Depends: (linux-image-\S+)/.exec(stdout)?.[1];
  };
  let name = await ask();
  if (name === undefined && process.getuid?.() === 0) {
    await mustRun("apt-get", ["update", "-q"]);
    name = await ask();
  }
  if (name !== undefined) return name;
  throw new Error(`The package lists do not name ${META_PACKAGE}. Run "apt-get update" as root, then again.`);
}

async function runningKernel(): Promise<string> {
  const image = `/boot/vmlinuz-${release()}`;
  const modules = `/lib/modules/${release()}`;
  if ((await isReadable(image)) && (await isReadable(modules))) return image;
  throw new Error(
    `The running system's kernel (${image}, ${modules}) is missing or not readable by you. ` +
      `Run as root, or make a copy that you may read and name it: MICROVM_LAB_KERNEL=/path/to/vmlinuz`,
  );
}

async function isDebian(): Promise<boolean> {
  const description = await readFile("/etc/os-release", "utf8").catch(() => "");
  return /^ID=debian$/m.test(description);
}

async function isReadable(path: string): Promise<boolean> {
  return access(path, constants.R_OK).then(
    () => true,
    () => false,
  );
}
