import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { findBusybox } from "../../../../provider/host/initramfs/busybox.js";

/** An ELF program with one program header (elf(5)): PT_INTERP makes it dynamically linked. */
function program(machine: number, header: "PT_LOAD" | "PT_INTERP"): Buffer {
  const bytes = Buffer.alloc(128);
  bytes.writeUInt32BE(0x7f454c46, 0);
  bytes.writeUInt8(2, 4);
  bytes.writeUInt8(1, 5);
  bytes.writeUInt16LE(machine, 18);
  bytes.writeBigUInt64LE(64n, 32);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(1, 56);
  bytes.writeUInt32LE(header === "PT_LOAD" ? 1 : 3, 64);
  return bytes;
}

let folder: string;
let place: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "initramfs-busybox-"));
  place = join(folder, "busybox");
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

function failure(): Promise<string> {
  return findBusybox("aarch64", folder, []).then(String, String);
}

describe("the busybox for an initramfs", () => {
  it("is static and of the kernel's processor, on PATH or elsewhere", async () => {
    const content = program(62, "PT_LOAD");
    await writeFile(place, content);
    expect(await findBusybox("x86_64", `relative:${folder}`, [])).toMatchObject({ path: place, content });
    expect(await findBusybox("x86_64", "", [place])).toMatchObject({ path: place, content });
  });

  it("is the first that fits", async () => {
    await writeFile(place, program(62, "PT_INTERP"));
    await writeFile(join(folder, "other"), program(62, "PT_LOAD"));
    expect((await findBusybox("x86_64", folder, [join(folder, "other")])).path).toBe(join(folder, "other"));
  });

  it("that does not fit or is missing is an error that names the package", async () => {
    expect(await failure()).toContain("none was found");
    expect(await failure()).toContain("apt-get install busybox-static");
    await writeFile(place, program(183, "PT_INTERP"));
    expect(await failure()).toContain(`${place} is dynamically linked`);
    await writeFile(place, program(62, "PT_LOAD"));
    expect(await failure()).toContain(`${place} is not for aarch64`);
    await writeFile(place, "#!/bin/sh\n");
    expect(await failure()).toContain(`${place} is not a 64-bit ELF program`);
    await rm(place);
    await symlink("busybox", place);
    expect(await failure()).toContain("none was found");
  });
});
