import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

import { afterEach, beforeEach, describe, expect, it } from "vitest";

import type { CommandContext } from "../../../provider/cli/microvm.js";
import { checkKernel } from "../../../provider/cli/kernel.js";
import { arm64Image, bzImage, unpackedKernel } from "../preflight/kernel/images.js";
import { runMicrovm } from "./microvm-command.js";

const RELEASE = "6.1.999-test";

const BASE = ["BINFMT_ELF", "BINFMT_SCRIPT", "SERIAL_8250_CONSOLE", "PRINTK", "PCI", "ACPI", "NET", "INET"];
const INITRAMFS = ["BLK_DEV_INITRD", "DEVTMPFS", "PROC_FS", "SYSFS", "PACKET"];
const DRIVERS = ["VIRTIO_PCI", "VIRTIO_NET", "NFS_FS", "NFS_V3"];
const ALONE = ["ROOT_NFS", "IP_PNP", "IP_PNP_DHCP"];

/** The static one, as Debian installs it. */
const noBusybox = !existsSync("/usr/share/doc/busybox-static");

let folder: string;
let image: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "kernel-check-"));
  await mkdir(join(folder, "boot"));
  image = join(folder, "boot", "vmlinuz");
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** Writes a kernel with these options, and the modules of those that are modules. */
async function kernel(options: Readonly<Record<"y" | "m", readonly string[]>>): Promise<void> {
  const lines = Object.entries(options).flatMap(([value, names]) =>
    names.map((name) => `CONFIG_${name}=${value}\n`),
  );
  await writeFile(image, bzImage(RELEASE, gzipSync(unpackedKernel(RELEASE, lines.join("")))));
}

async function check(json = false): Promise<{ status: number; text: string }> {
  const lines: string[] = [];
  const context: CommandContext = { stateDirectory: folder, print: (line) => lines.push(line) };
  const status = await checkKernel(context, image, json);
  return { status, text: lines.join("\n") };
}

describe("microvm kernel check", () => {
  it("finds a kernel with all built in good for an NFS root on each back end", async () => {
    await kernel({ y: [...BASE, ...DRIVERS, ...ALONE, "VIRTIO_MMIO"], m: [] });
    const { status, text } = await check();
    expect(text).toMatch(/^qemu \(q35\) +NFS +static +yes$/m);
    expect(text).toMatch(/^qemu \(microvm\) +NFS +dhcp +yes$/m);
    expect(text).toMatch(/^cloud-hypervisor +NFS +dhcp +yes$/m);
    expect(text).toMatch(/^arrakis +NFS +static +yes$/m);
    expect(text).toMatch(/^qemu \(q35\) +disk +- +no$/m);
    expect(text).toContain("CONFIG_VIRTIO_BLK is not set: needed to drive the disks");
    expect(text).toContain("boots one by itself");
    expect(status).toBe(0);
  });

  it("tells that an address by DHCP is what a kernel lacks", async () => {
    await kernel({ y: [...BASE, ...DRIVERS, "ROOT_NFS", "IP_PNP"], m: [] });
    const { status, text } = await check();
    expect(text).toMatch(/^qemu \(q35\) +NFS +static +yes$/m);
    expect(text).toMatch(/^qemu \(q35\) +NFS +dhcp +no$/m);
    expect(text).toMatch(/^qemu \(microvm\) +NFS +static +no$/m);
    expect(status).toBe(0);
  });

  it("fails for a kernel without NFS, and names each option", async () => {
    await kernel({ y: [...BASE, ...INITRAMFS, "VIRTIO_PCI", "VIRTIO_NET"], m: [] });
    const { status, text } = await check();
    expect(text).toContain("CONFIG_NFS_FS is not set: needed to mount NFS");
    expect(text).toContain("CONFIG_NFS_V3 is not set: needed to mount NFS version 3");
    expect(text).toContain("An NFS root: it cannot boot one");
    expect(text).not.toContain("would help");
    expect(status).toBe(1);
  });

  it("says that an initramfs would help, and fails while the modules for one are not here", async () => {
    await kernel({ y: [...BASE, ...INITRAMFS, ...ALONE], m: DRIVERS });
    const { status, text } = await check();
    expect(text).toContain("CONFIG_NFS_FS is m: needed to mount NFS");
    expect(text).toContain("an initramfs made from its modules would help");
    expect(status).toBe(1);
  });

  it.skipIf(noBusybox)(
    `passes once no module is needed that is not here${noBusybox ? " (busybox-static is not installed)" : ""}`,
    async () => {
      await kernel({ y: [...BASE, ...INITRAMFS, ...DRIVERS], m: [] });
      const { status, text } = await check();
      expect(text).toMatch(/^qemu \(q35\) +NFS +static +with an initramfs$/m);
      expect(text).toMatch(/^arrakis +NFS +static +no$/m);
      expect(text).toContain("CONFIG_ROOT_NFS is not set");
      expect(text).toContain("not by itself, but with an initramfs");
      expect(status).toBe(0);
    },
  );

  it("fails for a kernel whose configuration nobody knows, and says what to do", async () => {
    await writeFile(image, bzImage(RELEASE, gzipSync(unpackedKernel(RELEASE))));
    const { status, text } = await check();
    expect(text).toMatch(/^qemu \(q35\) +NFS +static +not known$/m);
    expect(text).toContain("CONFIG_IKCONFIG");
    expect(status).toBe(1);
  });

  it("fails for a kernel of another processor", async () => {
    await writeFile(image, arm64Image(unpackedKernel(RELEASE, "CONFIG_NFS_FS=y\n")));
    const { status, text } = await check();
    expect(text).toContain("it is a kernel for aarch64, and the back ends run x86_64 guests");
    expect(status).toBe(1);
  });

  it("prints the same as JSON", async () => {
    await kernel({ y: [...BASE, ...DRIVERS, ...ALONE], m: [] });
    const { status, text } = await check(true);
    const printed = JSON.parse(text) as { abilities: readonly unknown[] };
    expect(printed).toMatchObject({ path: image, release: RELEASE, configuration: "image", nfsRoot: "yes" });
    expect(printed.abilities[0]).toEqual({
      backend: "qemu",
      machine: "q35",
      root: "nfs",
      address: "static",
      boots: "yes",
      reasons: [],
      remarks: expect.arrayContaining([expect.stringContaining("CONFIG_ACPI_BUTTON")]) as unknown,
    });
    expect(status).toBe(0);
  });

  it("refuses what is no kernel, in words, as a program", async () => {
    await writeFile(image, "#!/bin/sh\n");
    const outcome = await runMicrovm(["kernel", "check", image]);
    expect(outcome.status).toBe(1);
    expect(outcome.stderr).toContain(`${image} is not a kernel that can be booted`);
    expect(outcome.stderr).toContain("[file-unusable]");
    expect((await runMicrovm(["kernel", "check"])).status).toBe(2);
  });
});
