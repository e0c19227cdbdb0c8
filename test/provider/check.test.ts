import { truncate, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { defaultStateDirectory } from "../../provider/host/state-directory.js";
import { check } from "../../provider/index.js";
import { UNKNOWN } from "../../provider/spec/validate.js";
import {
  checkedInputs,
  diffOf,
  existing,
  kernelImage,
  newsOf,
  reasons,
  replaces,
  sha256,
  useBed,
} from "./bed.js";
import { nfsSpec } from "./boot/sample-spec.js";

const bed = useBed();

describe("check of a new VM", () => {
  it("gives the spec, what is booted, and who asked", async () => {
    const news = newsOf(bed, { vmName: "first" });
    expect(await checkedInputs({}, news)).toEqual({
      ...nfsSpec({ vmName: "first", kernel: bed.kernel, preflight: "off" }),
      owner: news["owner"],
      nfsServerAddress: "127.0.0.1",
      kernelSha256: sha256(kernelImage()),
      stateDirectory: defaultStateDirectory(),
      observed: "running",
      cmdline:
        'console=ttyS0 root=/dev/nfs nfsroot=10.0.2.2:/,nfsvers=3,tcp,nolock,port=11111,mountport=11111,rsize=1048576,wsize=1048576 ip=10.0.2.15::10.0.2.2:255.255.255.0:first:eth0:off:10.0.2.3 rw gateway_ip="10.0.2.2/24" guest_ip="10.0.2.15/24" vm_name="first" panic=-1',
      disks: [],
    });
  });

  it("is the same in preview and up", async () => {
    const news = newsOf(bed);
    expect(await checkedInputs({}, news)).toEqual(await checkedInputs({}, news));
  });

  it("says where a server on this host is for the guest, and the whole command line", async () => {
    const { cmdline } = await checkedInputs({}, newsOf(bed, { vmName: "noticed", nfsServer: "localhost" }));
    expect(bed.lines).toEqual([
      "nfsServer localhost is this host; a guest reaches it as 10.0.2.2",
      `noticed: kernel command line: ${String(cmdline)}`,
    ]);
  });

  it("shows the address of the bridge for a server on this host, and the guest's own, as they boot", async () => {
    const backend = { type: "cloud-hypervisor" };
    const { cmdline } = await checkedInputs({}, newsOf(bed, { vmName: "web", backend }));
    expect(cmdline).toMatch(
      / nfsroot=10\.20\.1\.1:\/,.* ip=10\.20\.58\.21::10\.20\.1\.1:255\.255\.0\.0:web:eth0:off rw gateway_ip="10\.20\.1\.1\/16" guest_ip="10\.20\.58\.21\/16" /,
    );
    expect(bed.lines[0]).toBe("nfsServer 127.0.0.1 is this host; a guest reaches it as 10.20.1.1");
    const unknown = await checkedInputs({}, newsOf(bed, { backend, network: { subnet: UNKNOWN } }));
    expect(unknown["cmdline"]).toBe(UNKNOWN);
  });

  it("says that a guest reaches its server alone, at an address of its own, without a name server", async () => {
    const inputs = { vmName: "alone", nfsServer: "192.0.2.7", guestAccess: "nfs-only" };
    const { cmdline } = await checkedInputs({}, newsOf(bed, inputs));
    expect(cmdline).toMatch(
      / nfsroot=10\.0\.2\.100:\/,.* ip=10\.0\.2\.15::10\.0\.2\.2:[0-9.]+:alone:eth0:off rw /,
    );
    expect(bed.lines).toEqual([
      "alone: the guest reaches nfsServer 192.0.2.7 as 10.0.2.100, and nothing else",
      `alone: kernel command line: ${String(cmdline)}`,
    ]);
  });

  it("lists the disks of a disk root, the image by its content", async () => {
    const rootfs = join(bed.folder, "rootfs.img");
    await writeFile(rootfs, "image");
    const inputs = await checkedInputs(
      {},
      newsOf(bed, { vmName: "disks", useNfsRoot: undefined, nfsServer: undefined, rootfs, vcpus: 2 }),
    );
    expect(inputs).toMatchObject({
      rootfsDigest: sha256("image"),
      cmdline:
        'console=ttyS0 root=/dev/vda ro gateway_ip="10.0.2.2/24" guest_ip="10.0.2.15/24" vm_name="disks" panic=-1',
      disks: [{ path: rootfs, readonly: true, numQueues: 2 }],
    });
  });

  it("tells an image of over 1 GiB by its size and time", async () => {
    const rootfs = join(bed.folder, "large.img");
    await writeFile(rootfs, "");
    await truncate(rootfs, 2 ** 30 + 1);
    await utimes(rootfs, 0, 1_700_000_000);
    const inputs = await checkedInputs({}, newsOf(bed, { useNfsRoot: false, nfsServer: undefined, rootfs }));
    expect(inputs["rootfsDigest"]).toBe("size:1073741825,mtime:2023-11-14T22:13:20.000Z");
  });

  it("resolves a server's name", async () => {
    expect(await checkedInputs({}, newsOf(bed, { nfsServer: "localhost" }))).toMatchObject({
      nfsServer: "localhost",
      nfsServerAddress: "127.0.0.1",
      cmdline: expect.stringContaining(" nfsroot=10.0.2.2:/,"),
    });
  });

  it("refuses a name that stands for no address", async () => {
    expect(await reasons({}, newsOf(bed, { nfsServer: "nowhere.invalid" }))).toEqual([
      expect.stringMatching(
        /^nfsServer: expected a name with an IPv4 address, got "nowhere\.invalid" \(E[A-Z_]+\): correct it/,
      ),
    ]);
  });

  it("refuses inputs that this package's class did not send", async () => {
    await expect(check({}, newsOf(bed, { owner: undefined }))).rejects.toMatchObject({
      name: "MicroVmError",
      code: "invalid-input",
      input: "owner",
    });
  });

  it("names the property of a failure, and none where its value is a secret", async () => {
    const wrong = { nfsPort: 0, readiness: { console: "(" }, entryPoint: "a b" };
    const { failures } = await check({}, newsOf(bed, { ...wrong, secretInputs: ["entryPoint"] }));
    expect(failures.map(({ property, reason }) => [property, reason.split(":")[0]])).toEqual([
      ["nfsPort", "nfsPort"],
      ["readiness", "readiness.console"],
      ["", "entryPoint"],
      ["", "entryPoint"],
    ]);
  });

  it("never shows the path of a file that is a secret", async () => {
    const secret = join(bed.folder, "hidden-kernel");
    const { failures } = await check({}, newsOf(bed, { kernel: secret, secretInputs: ["kernel"] }));
    expect(failures).toEqual([
      {
        property: "",
        reason: expect.stringMatching(/^kernel: there is no file \[secret\];/),
        code: "file-unusable",
      },
    ]);
    expect(bed.lines.join("\n")).not.toContain(secret);
  });

  it("refuses an initramfs of the person's own that could not prove its root", async () => {
    const initramfs = join(bed.folder, "initramfs");
    await writeFile(initramfs, "an archive");
    expect(await reasons({}, newsOf(bed, { initramfs }))).toEqual([
      expect.stringMatching(/^readiness\.console: an `initramfs` of your own mounts the root/),
    ]);
    expect(await reasons({}, newsOf(bed, { initramfs, readiness: { console: "login:" } }))).toEqual([]);
  });

  it("refuses a command line that is too long", async () => {
    const { failures } = await check({}, newsOf(bed, { kernelArgs: [`x=${"y".repeat(2000)}`] }));
    expect(failures).toEqual([
      {
        property: "kernelArgs",
        reason: expect.stringContaining("of at most 2047 bytes, got "),
        code: "invalid-input",
      },
    ]);
  });
});

describe("check of values that a preview does not know yet", () => {
  it("leaves the command line and the disks unknown where they depend on one", async () => {
    expect(await checkedInputs({}, newsOf(bed, { nfsServer: UNKNOWN, preflight: "error" }))).toMatchObject({
      nfsServer: UNKNOWN,
      cmdline: UNKNOWN,
      disks: UNKNOWN,
      kernelSha256: sha256(kernelImage()),
    });
  });

  it("shows the command line where it does not", async () => {
    const forwards = [{ hostPort: UNKNOWN, guestPort: 80 }];
    const inputs = await checkedInputs({}, newsOf(bed, { portForwards: forwards }));
    expect(inputs["portForwards"]).toBe(UNKNOWN);
    expect(inputs["cmdline"]).toContain("root=/dev/nfs");
  });

  it("plans no replace of an existing VM for a port forward", async () => {
    const news = newsOf(bed);
    const olds = await existing(news);
    const inputs = await checkedInputs(olds, { ...news, portForwards: UNKNOWN });
    expect(await diffOf(olds, inputs)).toMatchObject({
      changes: true,
      replaces: [],
    });
    const other = await checkedInputs(olds, { ...news, nfsServer: UNKNOWN });
    expect(await replaces(olds, other)).toEqual(["nfsServer", "cmdline"]);
  });

  it("asks nothing of a kernel that it does not know", async () => {
    expect(await checkedInputs({}, newsOf(bed, { kernel: UNKNOWN }))).toMatchObject({
      kernel: UNKNOWN,
      cmdline: UNKNOWN,
    });
  });

  it("does not refuse a new VM beside the old one for a root that may be another", async () => {
    const news = newsOf(bed, { createFirst: true });
    const olds = await existing(news);
    const inputs = await checkedInputs(olds, { ...news, nfsServer: UNKNOWN });
    expect(inputs["vmName"]).toBe(UNKNOWN);
  });
});
