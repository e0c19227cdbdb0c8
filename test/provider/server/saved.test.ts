import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { savedBoot, snapshotIdOf, vmNameOf } from "../../../provider/server/saved.js";
import { makeSnapshot, SNAPSHOT_ID } from "../host/sample-snapshot.js";

let folder: string;
beforeAll(async () => (folder = await mkdtemp(join(tmpdir(), "microvm-saved-"))));
afterAll(async () => await rm(folder, { recursive: true, force: true }));

describe("names of snapshots", () => {
  it("keeps an id of this host, and makes one from any other word", () => {
    expect(snapshotIdOf("vm", "vm-0123456789abcdef")).toBe("vm-0123456789abcdef");
    expect(snapshotIdOf("vm", "other-0123456789abcdef")).toMatch(/^vm-[0-9a-f]{16}$/);
    expect(snapshotIdOf("vm", "../../etc/passwd")).toMatch(/^vm-[0-9a-f]{16}$/);
    expect(snapshotIdOf("vm", "a")).not.toBe(snapshotIdOf("vm", "b"));
  });

  it.each(["", "a b", "a\nb", "\u00e9", "x".repeat(257)])("refuses %j", (name) => {
    expect(() => snapshotIdOf("vm", name)).toThrow(/expected a word/);
  });

  it("tells the VM of an id", () => {
    expect(vmNameOf("my-vm-0123456789abcdef")).toBe("my-vm");
    expect(vmNameOf("snapshot")).toBeUndefined();
  });
});

describe("what a snapshot was booted from", () => {
  it("is what its guest is made from, once the caller accepts a root that has gone on", async () => {
    const saved = await makeSnapshot(folder);
    const request = { snapshotId: saved.id };
    await expect(savedBoot(folder, saved.vmName, request)).rejects.toMatchObject({
      statusCode: 400,
      message: expect.stringMatching(/^acceptStaleRoot: expected true/),
    });
    const found = await savedBoot(folder, saved.vmName, { ...request, acceptStaleRoot: true });
    expect(found).toEqual({ id: saved.id, boot: saved.boot });
  });

  it("is nothing under another name", async () => {
    await expect(savedBoot(folder, "other", { snapshotId: SNAPSHOT_ID })).rejects.toMatchObject({
      statusCode: 404,
    });
    await expect(savedBoot(folder, "../x", { snapshotId: "a" })).rejects.toMatchObject({ statusCode: 404 });
  });
});
