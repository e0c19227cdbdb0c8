/**
 * The seed's document on NFS roots, command by command: its examples, and its migration guide, as curl sends them to port 7000, with
 * guests that boot. What it names /path/to stands for a file of the lab's.
 */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isInNamespace, runInNamespace } from "../lab/namespace.js";
import { CONFIG, Seed, whyNoSeed } from "./seed.js";

const title = "the seed's commands";
const reason = whyNoSeed();

if (reason !== undefined) {
  describe(title, () => it.skip(`skipped: ${reason}`, () => undefined));
} else if (!isInNamespace()) {
  it(`${title}, in a network namespace of their own`, () => {
    expect(runInNamespace(__filename)).toBe(0);
  });
} else {
  describe(title, () => {
    let seed: Seed;
    beforeAll(async () => {
      seed = await Seed.open();
    });
    afterAll(async () => await seed.close());

    async function remove(vmName: string): Promise<void> {
      const command = `curl -X DELETE http://localhost:7000/v1/vms/${vmName}`;
      expect(await seed.shell(command)).toMatchObject({ success: true });
    }

    it("Option 2: settings in the request", async () => {
      expect(
        await seed.shell(`curl -X POST http://localhost:7000/v1/vms \\
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
      expect(await seed.rootOf("my-nfs-vm")).toMatch(/^10\.0\.2\.2:\/ \/ nfs .*port=11111.*\n\/dev\/vda\n$/);
      await remove("my-nfs-vm");
    });

    it("Example 1: the config's defaults", async () => {
      expect(
        await seed.shell(`curl -X POST http://localhost:7000/v1/vms \\
  -H "Content-Type: application/json" \\
  -d '{
    "vmName": "test-vm"
  }'`),
      ).toMatchObject({ vmName: "test-vm", status: "RUNNING", rootEvidence: "proved" });
      expect(await seed.rootOf("test-vm")).toMatch(/^10\.0\.2\.2:\/ \/ nfs .*port=11111/);
      expect(await readFile(join(seed.folder, "root/var/boots.txt"), "utf8")).toContain("test-vm: Linux");
    });

    it("Example 2: another server than the config's", async () => {
      expect(
        await seed.shell(`curl -X POST http://localhost:7000/v1/vms \\
  -H "Content-Type: application/json" \\
  -d '{
    "vmName": "agentfs-vm",
    "useNfsRoot": true,
    "nfsServer": "10.0.0.1",
    "nfsPort": 2049,
    "nfsPath": "/exports/vm-root"
  }'`),
      ).toMatchObject({ vmName: "agentfs-vm", status: "RUNNING", rootEvidence: "proved" });
      expect(await seed.rootOf("agentfs-vm")).toMatch(/^10\.0\.0\.1:\/exports\/vm-root \/ nfs /);
      expect(await readFile(join(seed.folder, "exported/var/boots.txt"), "utf8")).toContain(
        "agentfs-vm: Linux",
      );
      await remove("agentfs-vm");
    });

    it("Example 3: a disk where the config has NFS", async () => {
      expect(
        await seed.shell(`curl -X POST http://localhost:7000/v1/vms \\
  -H "Content-Type: application/json" \\
  -d '{
    "vmName": "local-disk-vm",
    "useNfsRoot": false,
    "rootfs": "/path/to/rootfs.img"
  }'`),
      ).toMatchObject({ vmName: "local-disk-vm", status: "RUNNING", rootEvidence: "proved" });
      expect(await seed.rootOf("local-disk-vm")).toMatch(/^overlay \/ overlay .*\n\/dev\/vda\n\/dev\/vdb\n$/);
      await remove("local-disk-vm");
    });

    it("the rules of validation", async () => {
      await seed.start(CONFIG.replaceAll(/ +nfs_.*\n/g, ""));
      const post = `curl -X POST http://localhost:7000/v1/vms -H "Content-Type: application/json" -d `;
      expect(await seed.shell(`${post}'{ "useNfsRoot": true, "nfsPort": 11111 }'`)).toMatchObject(
        refusal("NFS server address is required"),
      );
      expect(await seed.shell(`${post}'{ "useNfsRoot": true, "nfsServer": "127.0.0.1" }'`)).toMatchObject(
        refusal("NFS server port is required"),
      );
    });

    it("the command line that a request would boot, its entry point in it", async () => {
      const dryRun = `curl -X POST "http://localhost:7000/v1/vms?dryRun=true" -H "Content-Type: application/json" -d `;
      const body =
        '{ "vmName": "my-vm", "entryPoint": "/start", "useNfsRoot": true, "nfsServer": "127.0.0.1", "nfsPort": 11111 }';
      const { cmdline } = await seed.shell(`${dryRun}'${body}'`);
      expect(cmdline).toMatch(/ root=\/dev\/nfs nfsroot=10\.0\.2\.2:\/,.* entry_point="\/start"/);
    });

    it("the migration guide: from a disk to NFS", async () => {
      // The server of the test before: without nfs_enabled in its config. It has found the VM of example 1 again.
      expect(await seed.shell("curl http://localhost:7000/v1/vms")).toMatchObject({
        vms: [{ vmName: "test-vm", status: "RUNNING" }],
      });
      expect(
        await seed.shell(`curl -X POST http://localhost:7000/v1/vms \\
  -H "Content-Type: application/json" \\
  -d '{
    "vmName": "my-vm",
    "rootfs": "/path/to/rootfs.img"
  }'`),
      ).toMatchObject({ vmName: "my-vm", status: "RUNNING" });
      expect(await seed.rootOf("my-vm")).toMatch(/ \/ overlay /);
      const after = `curl -X POST http://localhost:7000/v1/vms \\
  -H "Content-Type: application/json" \\
  -d '{
    "vmName": "my-vm",
    "useNfsRoot": true,
    "nfsServer": "127.0.0.1",
    "nfsPort": 11111
  }'`;
      expect(await seed.shell(after)).toMatchObject({ error: { code: "name-taken" } });
      await remove("my-vm");
      expect(await seed.shell(after)).toMatchObject({
        vmName: "my-vm",
        status: "RUNNING",
        rootEvidence: "proved",
      });
      expect(await seed.rootOf("my-vm")).toMatch(/ \/ nfs /);
      expect(await seed.shell("curl -X DELETE http://localhost:7000/v1/vms")).toEqual({ success: true });
      expect(await seed.shell("curl http://localhost:7000/v1/vms")).toEqual({ vms: [] });
    });
  });
}

function refusal(text: string): object {
  return { error: { message: expect.stringContaining(text) as string } };
}
