import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { readServerConfig } from "../../../provider/server/server-config.js";
import { readConfigFile } from "../../../provider/spec/config-file.js";
import { arrakisConfig, SEED_NFS_LINES } from "../../lab/arrakis-config.js";

async function fileOf(text: string): Promise<{ path: string; folder: string }> {
  const folder = await mkdtemp(join(tmpdir(), "microvm-config-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, "config.yaml");
  await writeFile(path, text);
  return { path, folder };
}

const server = (...lines: readonly string[]) =>
  `hostservices:\n  restserver:\n${lines.map((line) => `    ${line}\n`).join("")}`;

async function refusalOf(text: string): Promise<string> {
  const { path } = await fileOf(text);
  const error: unknown = await readServerConfig(path, 16_000).catch((caught: unknown) => caught);
  expect(error).toMatchObject({ name: "MicroVmError", code: "config-file" });
  return (error as Error).message.replace(path, "FILE");
}

describe("a server's config.yaml", () => {
  it("as Arrakis ships it is understood key by key", async () => {
    const { path, folder } = await fileOf(arrakisConfig());
    expect(await readServerConfig(path, 16_000)).toEqual({
      path,
      host: "0.0.0.0",
      port: 7000,
      stateDirectory: join(folder, "vm-state"),
      hypervisor: "cloud-hypervisor",
      hypervisorBinary: join(folder, "resources/bin/cloud-hypervisor"),
      network: { bridge: "br0", subnet: "10.20.1.1/24" },
      boot: {
        kernel: join(folder, "resources/bin/vmlinux.bin"),
        rootfs: join(folder, "out/arrakis-guestrootfs-ext4.img"),
        initramfs: join(folder, "out/initramfs.cpio.gz"),
        statefulDiskMiB: 2048,
      },
      memoryMiB: 4800,
      guestPorts: [
        { guestPort: 5901, description: "gui" },
        ...[5736, 5737, 5738, 5739, 5740].map((guestPort) => ({ guestPort, description: "code" })),
      ],
      commandServerPort: 4031,
      unused: [],
    });
  });

  it("with the seed's four lines has an NFS root, for the server and as a resource's configFile", async () => {
    const { path } = await fileOf(arrakisConfig(SEED_NFS_LINES));
    const nfs = { useNfsRoot: true, nfsServer: "127.0.0.1", nfsPort: 11111, nfsPath: "/" };
    expect((await readServerConfig(path)).boot).toMatchObject(nfs);
    expect(await readConfigFile(path)).toMatchObject(nfs);
  });

  it("that says nothing gives the defaults", async () => {
    const { path } = await fileOf(server('host: ""', "kernel:", "nfs_port:"));
    expect(await readServerConfig(path)).toEqual({
      path,
      host: "127.0.0.1",
      port: 7000,
      hypervisor: "cloud-hypervisor",
      boot: {},
      guestPorts: [],
      commandServerPort: 4031,
      unused: [],
    });
  });

  it("with our own keys has paths counted from its folder, and on QEMU names what is of no use there", async () => {
    const { path, folder } = await fileOf(
      server(
        "hypervisor: qemu",
        "token_file: token",
        "tls_cert: tls/cert.pem",
        "tls_key: /etc/key.pem",
        'ready_console: "login:"',
        "bridge_name: br0",
        "chv_bin: ./chv",
      ),
    );
    const config = await readServerConfig(path);
    expect(config).toMatchObject({
      hypervisor: "qemu",
      tokenFile: join(folder, "token"),
      tls: { cert: join(folder, "tls/cert.pem"), key: "/etc/key.pem" },
      readyConsole: "login:",
      unused: ["bridge_name", "chv_bin"],
    });
    expect([config.network, config.hypervisorBinary]).toEqual([undefined, undefined]);
  });

  it("gives a guest a part of the host's memory as Arrakis does: at most 32 GiB, and not less than 1", async () => {
    const { path } = await fileOf(server('guest_mem_percentage: "30"'));
    expect((await readServerConfig(path, 200_000)).memoryMiB).toBe(32_768);
    expect((await readServerConfig(path, 3414)).memoryMiB).toBe(1024);
    await expect(readServerConfig(path, 3000)).rejects.toThrow(
      /config\.yaml:3:27: .*expected at least 1024 MiB for a guest, 35 % here of 3000 MiB, got "30" \(string\)/,
    );
    expect((await readServerConfig(path)).memoryMiB).toBeGreaterThanOrEqual(1024);
  });
});

describe("a config.yaml is refused by file, line and column", () => {
  it.each([
    [
      "a port as a word",
      server('port: "http"'),
      '3:11: hostservices.restserver.port: expected an integer from 1 to 65535, got "http" (string)',
    ],
    [
      "a port that is none",
      server("port: 0"),
      "3:11: hostservices.restserver.port: expected an integer from 1 to 65535, got 0 (number)",
    ],
    [
      "a hypervisor that is none",
      server("host: localhost", "hypervisor: xen"),
      '4:17: hostservices.restserver.hypervisor: expected "cloud-hypervisor" or "qemu", got "xen" (string)',
    ],
    [
      "a pattern that is none",
      server('ready_console: "("'),
      '3:20: hostservices.restserver.ready_console: expected a regular expression that JavaScript can compile, got "(" (string)',
    ],
    [
      "a mistyped key",
      server("kernell: /k"),
      '3:5: hostservices.restserver.kernell: unknown key; did you mean "kernel"?',
    ],
    [
      "a key in another place",
      "hostservices:\n  nfs_enabled: true\n  restserver: {}\n",
      '2:3: hostservices.nfs_enabled: unknown key; did you mean "hostservices.restserver.nfs_enabled"?',
    ],
    [
      "the first of several",
      server("kernel: []", "portt: 1", "port: x"),
      "3:13: hostservices.restserver.kernel: expected a path, got [] (list)",
    ],
    [
      "a forward in a list",
      server("port_forwards:", '  - port: "80"', '  - {port: "90-80", description: x}'),
      '5:16: hostservices.restserver.port_forwards.1.port: expected a port or a range of at most 256 such as 5736-5740, got "90-80" (string)',
    ],
    [
      "a port over 65535 at the end of a range",
      server("port_forwards: [{ port: 65535-65536 }]"),
      '3:29: hostservices.restserver.port_forwards.0.port: expected a port or a range of at most 256 such as 5736-5740, got "65535-65536" (string)',
    ],
    [
      "what came by an alias, at the alias",
      `${server("kernel: &k [1]", "rootfs: /r").replace("&k [1]", "&k /k")}guestservices: { cmdserver: { port: *k } }\n`,
      '5:37: guestservices.cmdserver.port: expected an integer from 1 to 65535, got "/k" (string)',
    ],
    [
      "a certificate without its key",
      server("tls_cert: /c"),
      '3:15: hostservices.restserver.tls_cert: expected tls_key beside it, got "/c" (string)',
    ],
    ["no server", "guestservices: {}\n", "1:1: hostservices: expected keys with their values, got nothing"],
    ["a key twice", server("port: 1", "port: 2"), "4:5: duplicated mapping key"],
    [
      "a bad bridge",
      server("bridge_ip: 10.0.0.300"),
      '3:16: hostservices.restserver.bridge_ip: expected an IPv4 address, with or without its prefix length, such as 10.20.1.1/24, got "10.0.0.300" (string)',
    ],
    [
      "a section that is a text",
      "hostservices: x\n",
      '1:15: hostservices: expected keys with their values, got "x" (string)',
    ],
  ])("%s", async (_, text, message) => {
    expect(await refusalOf(text)).toBe(`configFile: FILE:${message}`);
  });

  it("unless it is not there, or two documents", async () => {
    expect(await refusalOf("a: 1\n---\nb: 2\n")).toBe(
      "configFile: expected a readable YAML file at FILE, got: expected a single document in the stream, but found more",
    );
    await expect(readServerConfig("/nonexistent/config.yaml")).rejects.toThrow(/got: ENOENT/);
  });

  it("also where a key cannot be shown as it is", async () => {
    const long = "k".repeat(200_000);
    expect(await refusalOf(server(`"a\\nb": 1`))).toContain(
      'hostservices.restserver."a\\nb" (string): unknown key',
    );
    expect((await refusalOf(server(`${long}: 1`))).length).toBeLessThan(300);
  });
});
