import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { specOf } from "../../../provider/spec/check.js";
import { UNKNOWN } from "../../../provider/spec/validate.js";
import { nfsSpec } from "../boot/sample-spec.js";
import { checked, context, diskInputs, messagesOf, nfsInputs, type Inputs } from "./sample-inputs.js";

/** A file config.yaml in a folder of its own, gone after the test. */
async function configFile(text: string): Promise<{ path: string; folder: string }> {
  const folder = await mkdtemp(join(tmpdir(), "microvm-spec-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, "config.yaml");
  await writeFile(path, text);
  return { path, folder };
}

const restServer = (lines: string) => `hostservices:\n  restserver:\n${lines.replaceAll(/^/gm, "    ")}\n`;

describe("a spec", () => {
  it("of an NFS root has every default filled in", async () => {
    const { spec } = await checked(nfsInputs);
    expect(spec).toEqual(nfsSpec({ vmName: "web-dd8e191d" }));
  });

  it("of a disk root has nothing of NFS", async () => {
    const { spec } = await checked({ ...diskInputs, nfsPort: 2049, nfsPath: "/x", nfsOptions: "hard" });
    expect(spec).toMatchObject({ useNfsRoot: false, rootfs: "/srv/rootfs.img" });
    expect(Object.keys(spec).filter((name) => name.startsWith("nfs"))).toEqual([]);
  });

  it("of an NFS root ignores rootfs", async () => {
    expect((await checked({ ...nfsInputs, rootfs: "/srv/rootfs.img" })).spec).not.toHaveProperty("rootfs");
  });

  it.each([
    [{ nfsPort: 2049 }, { nfsMountPort: "rpcbind" }],
    [{ nfsPort: 2050 }, { nfsMountPort: 2050 }],
    [{ nfsPort: 2049, nfsMountPort: 20048 }, { nfsMountPort: 20048 }],
    [{ nfsMountPort: "rpcbind" }, { nfsMountPort: "rpcbind" }],
    [{ nfsOptions: "" }, { nfsOptions: "" }],
    [{ nfsOptions: "hard" }, { nfsOptions: "rsize=1048576,wsize=1048576,hard" }],
    [{ kernelArgs: [] }, { kernelArgs: [] }],
    [{ kernelArgs: ["init=/x"] }, { kernelArgs: ["panic=-1", "init=/x"] }],
    [{ kernelArgs: ["init=/x", "panic=5"] }, { kernelArgs: ["init=/x", "panic=5"] }],
    [{ readiness: {} }, { readiness: { timeoutSeconds: 120 } }],
    [{ readiness: { console: "ready" } }, { readiness: { timeoutSeconds: 120, console: "ready" } }],
    [{ kernelArgs: ["quiet"], readiness: { console: "x" } }, { kernelArgs: ["panic=-1", "quiet"] }],
    [{ kernelArgs: ["loglevel=7"] }, { kernelArgs: ["panic=-1", "loglevel=7"] }],
    [{ backend: { type: "qemu" } }, { backend: { type: "qemu", machine: "q35", accelerator: "auto" } }],
    [
      { portForwards: [{ hostPort: 1, guestPort: 2 }] },
      { portForwards: [{ hostPort: 1, guestPort: 2, protocol: "tcp", hostAddress: "127.0.0.1" }] },
    ],
    [{ ip: "10.0.2.254" }, { ip: "10.0.2.254" }],
    [{ nfsServer: "NFS-1.example." }, { nfsServer: "NFS-1.example." }],
    [{ nfsServer: "0.0.0.0" }, { nfsServer: "0.0.0.0" }],
    [{ vmName: "X".repeat(63) }, { vmName: "X".repeat(63) }],
    [{ nfsPath: "/a..b/..c" }, { nfsPath: "/a..b/..c" }],
    [{ kernel: '/boot/a b,"c"' }, { kernel: '/boot/a b,"c"' }],
    [{ initramfs: null, vcpus: null }, { vcpus: 1 }],
  ] as [Inputs, Inputs][])("of %j has %j", async (changes, part) => {
    expect((await checked({ ...nfsInputs, ...changes })).spec).toMatchObject(part);
  });

  it("takes inputs that are frozen or have no prototype", async () => {
    const bare = Object.assign(Object.create(null) as Inputs, nfsInputs, {
      readiness: Object.assign(Object.create(null) as Inputs, { timeoutSeconds: 5 }),
      kernelArgs: Object.freeze(["a"]),
    });
    const { spec } = await checked(Object.freeze(bare));
    expect(spec).toMatchObject({ readiness: { timeoutSeconds: 5 }, kernelArgs: ["panic=-1", "a"] });
  });

  it("tells of each input that is wrong, and of at most five words of one list", async () => {
    const messages = await messagesOf({
      ...nfsInputs,
      vcpus: 0,
      memoryMiB: 1,
      kernelArgs: Array.from({ length: 100_000 }, () => " "),
    });
    expect(messages.map((message) => message.split(":")[0])).toEqual([
      "vcpus",
      "memoryMiB",
      "kernelArgs.0",
      "kernelArgs.1",
      "kernelArgs.2",
      "kernelArgs.3",
      "kernelArgs.4",
    ]);
  });
});

describe("the sources of an input", () => {
  const file = restServer(
    'kernel: /boot/other\nnfs_enabled: true\nnfs_server: "10.0.0.9"\nnfs_port: "2050"\nnfs_path: /exports',
  );

  it("are the argument, then the config file, then the default", async () => {
    const { path } = await configFile(file);
    expect((await checked({ configFile: path, kernel: "/boot/mine", nfsPort: 3049 })).spec).toMatchObject({
      kernel: "/boot/mine",
      useNfsRoot: true,
      nfsServer: "10.0.0.9",
      nfsPort: 3049,
      nfsPath: "/exports",
      nfsMountPort: 3049,
      vcpus: 1,
    });
  });

  it("give a disk root to an explicit useNfsRoot: false, whatever the file says", async () => {
    const { path } = await configFile(file);
    const { spec } = await checked({ configFile: path, useNfsRoot: false, rootfs: "/path/to/rootfs.img" });
    expect(spec).toMatchObject({ useNfsRoot: false, rootfs: "/path/to/rootfs.img", kernel: "/boot/other" });
    expect(spec).not.toHaveProperty("nfsServer");
  });

  it("count null and undefined as nothing", async () => {
    const { path } = await configFile(file);
    const inputs = { configFile: path, nfsServer: null, nfsPort: undefined };
    expect((await checked(inputs)).spec).toMatchObject({ nfsServer: "10.0.0.9", nfsPort: 2050 });
  });

  it("leave the file's initramfs to a disk root: Arrakis' own never reaches an NFS root", async () => {
    const { path, folder } = await configFile(
      restServer("kernel: k\nrootfs: r\ninitramfs: i\nnfs_server: 10.0.0.9\nnfs_port: 2049"),
    );
    expect((await checked({ configFile: path })).spec).toMatchObject({ initramfs: join(folder, "i") });
    const nfs = await checked({ configFile: path, useNfsRoot: true });
    expect(nfs.spec).not.toHaveProperty("initramfs");
    const own = await checked({ configFile: path, useNfsRoot: true, initramfs: "/mine" });
    expect(own.spec).toMatchObject({ initramfs: "/mine" });
  });
});

describe("a config file", () => {
  it("of Arrakis as it comes gives a disk root, its relative paths counted from its folder", async () => {
    const { path, folder } = await configFile(
      restServer(
        [
          'host: "0.0.0.0"',
          'port: "7000"',
          'state_dir: "./vm-state"',
          'bridge_name: "br0"',
          'chv_bin: "./resources/bin/cloud-hypervisor"',
          'kernel: "./resources/bin/vmlinux.bin"',
          'rootfs: "./out/arrakis-guestrootfs-ext4.img"',
          'initramfs: "./out/initramfs.cpio.gz"',
          'port_forwards:\n  - port: "5901"\n    description: "gui"',
          'stateful_size_in_mb: "2048"',
          'guest_mem_percentage: "30"',
        ].join("\n"),
      ) + '  client:\n    server_host: "127.0.0.1"\n',
    );
    expect((await checked({ configFile: path })).spec).toMatchObject({
      useNfsRoot: false,
      kernel: join(folder, "resources/bin/vmlinux.bin"),
      rootfs: join(folder, "out/arrakis-guestrootfs-ext4.img"),
      initramfs: join(folder, "out/initramfs.cpio.gz"),
      statefulDiskMiB: 2048,
    });
  });

  it("with the seed's four lines gives its NFS root", async () => {
    const { path } = await configFile(
      restServer('nfs_enabled: true\nnfs_server: "127.0.0.1"\nnfs_port: 11111\nnfs_path: "/"'),
    );
    expect((await checked({ configFile: path, kernel: "/boot/vmlinuz" })).spec).toMatchObject(nfsInputs);
  });

  it("that leaves a text empty says nothing", async () => {
    const { path } = await configFile(restServer('nfs_server: ""\nnfs_path: ""\nkernel: ""\ninitramfs: ""'));
    const { spec } = await checked({ ...diskInputs, configFile: path });
    expect(spec).toMatchObject({ kernel: "/boot/vmlinuz" });
    expect(spec).not.toHaveProperty("initramfs");
  });

  it.each([
    ["is no YAML", "a: [", /config\.yaml:1:5: unexpected end of the stream within a flow collection$/],
    ["is empty", "", /^configFile: expected a readable YAML file at .*config\.yaml, got: /],
    [
      "is a list",
      "- 1\n- 2\n",
      /config\.yaml:1:1: the document: expected keys with their values, got \[1,2\]/,
    ],
    [
      "has no restserver",
      "hostservices: {}\n",
      /config\.yaml:1:1: hostservices\.restserver: expected keys with their values, got nothing$/,
    ],
    [
      "has a text for a boolean",
      restServer('nfs_enabled: "yes"'),
      /config\.yaml:3:18: hostservices\.restserver\.nfs_enabled: expected true or false, got "yes" \(string\)$/,
    ],
    [
      "has a list for a path",
      restServer("kernel: [a]"),
      /config\.yaml:3:13: hostservices\.restserver\.kernel: expected a path, got \["a"\] \(list\)$/,
    ],
    [
      "has a code tag",
      restServer("kernel: !!js/function 'function () {}'"),
      /config\.yaml:3:13: unknown scalar tag /,
    ],
  ])("that %s is refused", async (_, text, message) => {
    const { path } = await configFile(text);
    const messages = await messagesOf({ ...nfsInputs, configFile: path });
    expect(messages).toEqual([expect.stringMatching(message)]);
  });

  it("with a value out of range is refused by line and column", async () => {
    const { path } = await configFile(
      restServer('nfs_enabled: true\nnfs_server: "10.0.0.9"\nnfs_port: 70000'),
    );
    expect(await messagesOf({ kernel: "/boot/vmlinuz", configFile: path })).toEqual([
      `configFile: ${path}:5:15: hostservices.restserver.nfs_port: expected an integer from 1 to 65535, got 70000 (number)`,
    ]);
  });

  it("that cannot be read is the only failure, whatever it would have given", async () => {
    expect(await messagesOf({ configFile: "/nonexistent/config.yaml" })).toHaveLength(1);
  });
});

describe("secrets", () => {
  const secret = "10.99.88.77";

  it.each([
    ["vmName", "web"],
    ["nfsServer", secret],
    ["nfsPort", 2049],
    ["nfsPath", "/hidden"],
    ["nfsMountPort", 2049],
    ["nfsOptions", "hard"],
    ["kernelArgs", ["token=hidden"]],
    ["ip", "10.0.2.99"],
    ["entryPoint", "/hidden"],
    ["rootfs", "/hidden"],
    ["useNfsRoot", true],
  ])("are refused for %s, which state would show in clear", async (input, value) => {
    expect(await messagesOf({ ...nfsInputs, [input]: value }, [input])).toEqual([
      `${input}: a secret cannot be used here: the value stands in the kernel command line or the disks, which Pulumi's state shows in clear`,
    ]);
  });

  it.each([
    ["nfsServer", `${secret}:1`],
    ["nfsPath", `/${secret} x`],
    ["kernelArgs", ["ok", `${secret} x`]],
    ["kernelArgs", [`root=${secret}`]],
    ["nfsOptions", `addr=${secret}`],
    ["ip", secret],
    ["vmName", secret],
    ["powerState", secret],
    ["kernel", secret],
    ["backend", { type: secret }],
    ["readiness", { console: `(${secret}` }],
    ["portForwards", [{ hostPort: 1, guestPort: 2, hostAddress: `${secret}x` }]],
    ["nfsSecret", secret],
  ])("never show in what is wrong with %s", async (input, value) => {
    const messages = await messagesOf({ ...nfsInputs, [input]: value }, [input]);
    expect(messages).not.toEqual([]);
    expect(messages.join("\n")).not.toContain(secret);
  });
});

describe("inputs that a preview does not know yet", () => {
  it.each([
    [{ nfsServer: UNKNOWN }, ["nfsServer"]],
    [{ nfsPort: UNKNOWN }, ["nfsPort", "nfsMountPort"]],
    [{ nfsPort: UNKNOWN, nfsMountPort: 2049 }, ["nfsPort"]],
    [{ kernelArgs: ["a", UNKNOWN] }, ["kernelArgs"]],
    [{ vmName: UNKNOWN }, ["vmName"]],
    [{ useNfsRoot: UNKNOWN }, ["useNfsRoot"]],
    [{ kernel: UNKNOWN }, ["kernel"]],
    [{ vcpus: UNKNOWN }, ["vcpus"]],
    [{ guestAccess: UNKNOWN }, ["guestAccess"]],
  ] as [Inputs, string[]][])("in %j leave the spec open and fail nothing", async (changes, unknown) => {
    const result = await specOf({ ...nfsInputs, ...changes }, context());
    expect(result.failures).toEqual([]);
    expect([...result.unknown].toSorted()).toEqual(unknown.toSorted());
    expect(result.spec).toBeUndefined();
  });

  it.each([
    { portForwards: [{ hostPort: UNKNOWN, guestPort: 80 }] },
    { readiness: { console: UNKNOWN } },
    { shutdownTimeoutSeconds: UNKNOWN },
    { memoryMiB: UNKNOWN },
    { powerState: UNKNOWN },
    { backend: { type: "qemu", binary: UNKNOWN } },
  ] as Inputs[])("in %j leave the command line and the disks known", async (changes) => {
    const { spec, unknown } = await checked({ ...nfsInputs, ...changes });
    expect([...unknown]).toEqual(Object.keys(changes));
    expect(spec).toMatchObject(nfsInputs);
  });

  it("do not hide what is wrong elsewhere", async () => {
    expect(await messagesOf({ ...nfsInputs, nfsServer: UNKNOWN, nfsPort: 0 })).toEqual([
      "nfsPort: expected an integer from 1 to 65535, got 0 (number)",
    ]);
  });

  it("in configFile make all that it could give unknown, and nothing that the program gives", async () => {
    const result = await specOf(
      { configFile: UNKNOWN, kernel: "/boot/vmlinuz", useNfsRoot: false },
      context(),
    );
    expect(result.failures).toEqual([]);
    expect([...result.unknown].toSorted()).toEqual(
      ["configFile", "initramfs", "rootfs", "statefulDiskMiB"].toSorted(),
    );
  });

  it("that NFS does not need are no concern of a disk root", async () => {
    const { spec } = await checked({ ...diskInputs, nfsPort: UNKNOWN, nfsPath: UNKNOWN });
    expect(spec.useNfsRoot).toBe(false);
  });
});
