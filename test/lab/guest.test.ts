import { mkdtemp, readFile, readlink, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeDiskImage, makeGuestRoot } from "./guest.js";
import { parseNfsRoot } from "../../provider/cli/nfs-root.js";
import { isOnPath } from "./programs.js";

const reason = isOnPath("busybox") ? undefined : "busybox is not installed";

describe.skipIf(reason !== undefined)(
  `the lab's guest root${reason === undefined ? "" : ` (${reason})`}`,
  () => {
    let folder = "";
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "lab-guest-test-"));
    });
    afterAll(() => rm(folder, { recursive: true, force: true }));

    it("has an init that runs, or fails in the way that was asked for", async () => {
      const directory = join(folder, "root");
      await makeGuestRoot(directory);
      expect(await readlink(join(directory, "sbin/init"))).toBe("../bin/busybox");
      await makeGuestRoot(directory, "exits");
      expect(await readFile(join(directory, "sbin/init"), "utf8")).toContain("exit 1");
      await makeGuestRoot(join(folder, "empty"), "missing");
      await expect(stat(join(folder, "empty/sbin/init"))).rejects.toThrow("ENOENT");
    });

    it.skipIf(!isOnPath("mkfs.ext4"))("becomes a sparse ext4 image (mkfs.ext4)", async () => {
      await makeGuestRoot(join(folder, "disk"));
      const image = join(folder, "disk.img");
      await makeDiskImage(join(folder, "disk"), image, 32);
      const { size, blocks } = await stat(image);
      expect(size).toBe(32 * 1024 * 1024);
      expect(blocks * 512).toBeLessThan(size / 2);
      // The magic number of ext4's superblock (Linux, fs/ext4/ext4.h, EXT4_SUPER_MAGIC).
      expect((await readFile(image)).readUInt16LE(0x438)).toBe(0xef53);
    });
  },
);

describe("a person's own NFS root, MICROVM_NFS", () => {
  it("is read with and without a mount port", () => {
    expect(parseNfsRoot("nas:2049:/exports/guest", "MICROVM_NFS")).toEqual({
      server: "nas",
      port: 2049,
      path: "/exports/guest",
    });
    expect(parseNfsRoot("10.0.0.5:11111+11112:/", "MICROVM_NFS")).toEqual({
      server: "10.0.0.5",
      port: 11111,
      mountPort: 11112,
      path: "/",
    });
  });

  it.each(["nas", "nas:/exports", "nas:2049:exports", ":2049:/x"])(
    "refuses %s with what it expects",
    (text) => {
      expect(() => parseNfsRoot(text, "MICROVM_NFS")).toThrow("expected HOST:PORT:PATH");
    },
  );
});
