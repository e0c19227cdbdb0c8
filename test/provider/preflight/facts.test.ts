import { chmod, mkdir, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { checkedInputs, kernelImage, newsOf, reasons, useBed } from "../bed.js";
import { bzImage, unpackedKernel } from "./kernel/images.js";

const bed = useBed();

/** Root may read everything: as root, the work is done as another user. */
async function withoutRootRights<T>(work: () => Promise<T>): Promise<T> {
  if (process.getuid?.() !== 0) return work();
  process.seteuid?.(65_534);
  try {
    return await work();
  } finally {
    process.seteuid?.(0);
  }
}

describe("check of the kernel", () => {
  it.each([
    ["is not there", async () => rm(bed.kernel), /^kernel: there is no file .*vmlinuz;/],
    [
      "is a folder",
      async () => {
        await rm(bed.kernel);
        await mkdir(bed.kernel);
      },
      /^kernel: .*vmlinuz is no regular file/,
    ],
    [
      "is a text",
      async () => writeFile(bed.kernel, "#!/bin/sh\n"),
      /^kernel: .*vmlinuz is not a kernel that can be booted: it is neither a vmlinux/,
    ],
    [
      "is empty",
      async () => writeFile(bed.kernel, ""),
      /^kernel: .*vmlinuz is not a kernel that can be booted/,
    ],
    [
      "lacks what no initramfs can bring",
      async () => writeFile(bed.kernel, kernelImage({ without: "SERIAL_8250_CONSOLE" })),
      /^kernel: cannot boot this root: CONFIG_SERIAL_8250_CONSOLE is not set: needed to print to the serial console ttyS0\. Use a kernel that has them \[kernel-unusable\]$/,
    ],
  ])("refuses one that %s", async (_, change, message) => {
    await change();
    const disk = { useNfsRoot: false, nfsServer: undefined, rootfs: __filename };
    expect(await reasons({}, newsOf(bed, { ...disk, preflight: "error" }))).toEqual([
      expect.stringMatching(message),
    ]);
  });

  it("refuses one that this user cannot read", async () => {
    await chmod(bed.kernel, 0);
    await chmod(bed.folder, 0o711);
    const found = await withoutRootRights(() => reasons({}, newsOf(bed)));
    expect(found).toEqual([
      expect.stringMatching(/^kernel: this user may not read .*vmlinuz; make it readable/),
    ]);
  });

  it("only warns of what it lacks, or is silent, where that was asked for", async () => {
    await writeFile(bed.kernel, kernelImage({ without: "SERIAL_8250_CONSOLE" }));
    await checkedInputs({}, newsOf(bed, { vmName: "silent", preflight: "off" }));
    expect(bed.lines.join("\n")).not.toContain("cannot boot");
    const disk = { vmName: "warned", useNfsRoot: false, nfsServer: undefined, rootfs: bed.kernel };
    await checkedInputs({}, newsOf(bed, { ...disk, preflight: "warn" }));
    expect(bed.lines).toContainEqual(
      expect.stringMatching(/^warned: warning: kernel: cannot boot this root: CONFIG_SERIAL/),
    );
  });

  it("asks for no configuration, and says that it could not", async () => {
    await writeFile(bed.kernel, bzImage("6.1.0-none", gzipSync(unpackedKernel("6.1.0-none"))));
    const disk = { vmName: "unchecked", useNfsRoot: false, nfsServer: undefined, rootfs: bed.kernel };
    await checkedInputs({}, newsOf(bed, { ...disk, preflight: "warn" }));
    expect(bed.lines).toContainEqual(
      expect.stringMatching(/^unchecked: kernel: not checked whether it can mount/),
    );
  });
});
