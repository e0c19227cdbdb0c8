import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { describe, expect, it, onTestFinished } from "vitest";

import { createFirstFailures, plan } from "../../../provider/plan/plan.js";
import { UNKNOWN } from "../../../provider/spec/validate.js";
import { specOf } from "../../../provider/spec/check.js";
import { checked, context, messagesOf, nfsInputs, type Inputs } from "./sample-inputs.js";

const tapInputs: Inputs = { ...nfsInputs, backend: { type: "cloud-hypervisor" } };

async function configFile(...lines: readonly string[]): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "microvm-spec-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, "config.yaml");
  await writeFile(path, ["hostservices:", "  restserver:", ...lines.map((line) => `    ${line}`)].join("\n"));
  return path;
}

const SUBNET =
  "expected an IPv4 network of 8 to 30 bits such as 10.20.1.0/24 (or 10.20.1.1/24: the host's address on it)";
const NAME =
  "expected a network interface name of at most 15 characters: letters, digits and _ . - after the first";

describe("the network of a tap", () => {
  it.each([
    [
      { ip: "10.21.0.5" },
      'ip: expected an address from 10.20.0.1 to 10.20.255.254 other than the host\'s, 10.20.1.1, got "10.21.0.5" (string)',
    ],
    [
      { ip: "10.20.1.1" },
      'ip: expected an address from 10.20.0.1 to 10.20.255.254 other than the host\'s, 10.20.1.1, got "10.20.1.1" (string)',
    ],
    [
      { ip: "10.20.255.255" },
      'ip: expected an address from 10.20.0.1 to 10.20.255.254 other than the host\'s, 10.20.1.1, got "10.20.255.255" (string)',
    ],
    [
      { ip: "10.20.0.5", network: { subnet: "10.20.0.0/30" } },
      'ip: expected an address from 10.20.0.1 to 10.20.0.2 other than the host\'s, 10.20.0.1, got "10.20.0.5" (string)',
    ],
    [
      { ip: "dhcp" },
      'ip: not supported: on a tap the provider gives the guest its address, and knows it only so; use "static", or an address of the network',
    ],
    [{ network: { subnet: "10.20.1.0/31" } }, `network.subnet: ${SUBNET}, got "10.20.1.0/31" (string)`],
    [{ network: { subnet: "10.20.1.255/24" } }, `network.subnet: ${SUBNET}, got "10.20.1.255/24" (string)`],
    [{ network: { bridge: "-x" } }, `network.bridge: ${NAME}, got "-x" (string)`],
    [{ network: { tap: "tap0;reboot" } }, `network.tap: ${NAME}, got "tap0;reboot" (string)`],
    [{ network: { bridge: ".." } }, `network.bridge: ${NAME}, got ".." (string)`],
    [
      { network: { name: "x" } },
      'network: expected an object { bridge?, tap?, subnet? } or { passt: true }, got the unknown field "name"',
    ],
    [
      { guestAccess: "nfs-only", nfsPort: 2049 },
      'nfsMountPort: expected the TCP port of mountd beside guestAccess: "nfs-only", which opens that port and no other, got "rpcbind" (the default beside nfsPort 2049); `rpcinfo -p` with the server names it',
    ],
    [
      { portForwards: [{ hostPort: 80, guestPort: 80, hostAddress: "127.0.0.2" }] },
      'portForwards.0.hostAddress: expected 127.0.0.1, 0.0.0.0 or an address of an interface of this host, got "127.0.0.2" (string)',
    ],
  ] as const)("is refused by name: %j", async (changes, message) => {
    expect(await messagesOf({ ...tapInputs, ...changes })).toEqual([message]);
  });

  it("is not shown where it is a secret: its addresses stand in the command line", async () => {
    expect(await messagesOf({ ...tapInputs, network: { subnet: "10.9.9.0/24" } }, ["network"])).toEqual([
      "network: a secret cannot be used here: the value stands in the kernel command line or the disks, which Pulumi's state shows in clear",
    ]);
  });

  it("leaves the command line unknown while it is not known, or the type of the back end", async () => {
    for (const changes of [{ network: { subnet: UNKNOWN } }, { backend: { type: UNKNOWN } }]) {
      const { spec, failures } = await specOf({ ...tapInputs, ...changes }, context());
      expect([spec, failures]).toEqual([undefined, []]);
    }
    const { spec } = await checked({ ...tapInputs, backend: { type: "cloud-hypervisor", binary: UNKNOWN } });
    expect(spec.backend).toEqual({ type: "cloud-hypervisor" });
  });

  it("changed to another is a replace, and spelled out another way none", async () => {
    const olds = (await checked(tapInputs)).spec as Inputs;
    const changed = (network: unknown) => plan(olds, { ...olds, network }).changes;
    expect(changed({ bridge: "br0" })).toEqual([{ field: "network", policy: "replace" }]);
    expect(changed({ subnet: "10.20.1.1/24" })).toEqual([{ field: "network", policy: "replace" }]);
    expect(changed({ bridge: "microvm0", subnet: "10.20.1.1/16" })).toEqual([]);
    expect(changed({})).toEqual([]);
  });
});

describe("old and new side by side", () => {
  it("are refused one address and one tap", async () => {
    const { spec } = await checked({ ...tapInputs, ip: "10.20.0.9", network: { tap: "mine" } });
    const next = { ...spec, vmName: "other", nfsPath: "/other" } as Inputs;
    expect(createFirstFailures(spec as Inputs, next).map(({ input }) => input)).toEqual(["ip", "network"]);
    expect(createFirstFailures(spec as Inputs, { ...next, ip: "static", network: {} })).toEqual([]);
  });
});

describe("the bridge and the forwards of a config file", () => {
  const lines = ['bridge_name: "br0"', 'bridge_ip: "10.20.1.1/24"', 'bridge_subnet: "10.20.1.0/24"'];

  it("are those of a VM on a tap, ranges of ports too", async () => {
    const path = await configFile(...lines, "port_forwards:", '  - port: "5901"', "  - port: 5736-5738");
    const { spec } = await checked({ ...tapInputs, configFile: path });
    expect(spec.network).toEqual({ bridge: "br0", subnet: "10.20.1.1/24" });
    expect(spec.portForwards).toEqual(
      [5901, 5736, 5737, 5738].map((port) => ({
        hostPort: port,
        guestPort: port,
        protocol: "tcp",
        hostAddress: "127.0.0.1",
      })),
    );
  });

  it("give way to those of the program, and are the server's own on QEMU", async () => {
    const path = await configFile(...lines, "port_forwards:", "  - port: 81");
    const network = { bridge: "mine" };
    const given = await checked({ ...nfsInputs, configFile: path });
    expect([given.spec.network, given.spec.portForwards]).toEqual([undefined, []]);
    const fine = await configFile(...lines, "port_forwards:", "  - port: 80");
    const own = await checked({ ...tapInputs, configFile: fine, network, portForwards: [] });
    expect([own.spec.network, own.spec.portForwards]).toEqual([network, []]);
  });

  it("may have the prefix length in the network alone", async () => {
    const path = await configFile('bridge_ip: "10.30.1.7"', 'bridge_subnet: "10.30.1.0/24"');
    expect((await checked({ ...tapInputs, configFile: path })).spec.network).toEqual({
      bridge: undefined,
      subnet: "10.30.1.7/24",
    });
  });

  it.each([
    ['- port: "5740-5736"', "expected a port or a range of at most 256 such as 5736-5740"],
    ['- port: "1-65535"', "expected a port or a range of at most 256 such as 5736-5740"],
    ['- port: "http"', "expected a port or a range of at most 256 such as 5736-5740"],
  ])("are refused by their key: %s", async (line, text) => {
    const path = await configFile("port_forwards:", `  ${line}`);
    const [message] = await messagesOf({ ...tapInputs, configFile: path });
    expect(message).toContain("hostservices.restserver.port_forwards.0.port");
    expect(message).toContain(text);
  });
});
