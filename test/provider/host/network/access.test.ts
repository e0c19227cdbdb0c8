import { describe, expect, it } from "vitest";

import { mayUseNamespaces, Namespace } from "./namespace.js";
import { playGuest, sampleHost, sampleVm } from "./vms.js";

const where = mayUseNamespaces ? "" : " (needs the right to make network namespaces, ip and nft)";

const tcp = (hostPort: number, guestPort: number, hostAddress: string) =>
  ({ hostPort, guestPort, protocol: "tcp", hostAddress }) as const;

describe.skipIf(!mayUseNamespaces)(`port forwards of a tap${where}`, { timeout: 60_000 }, () => {
  it("lead to the guest from this host's loopback address, from its others and from elsewhere, and no further", async () => {
    const { network, state, attacher } = await sampleHost();
    const outside = await Namespace.make();
    await network.cable("up0", "203.0.113.1/24", outside, "203.0.113.2/24");
    await network.sh("sysctl -qw net.ipv4.ip_forward=1");
    const vm = await sampleVm(state, "web", {
      portForwards: [tcp(8080, 80, "127.0.0.1"), tcp(8081, 80, "0.0.0.0"), tcp(8082, 80, "203.0.113.1")],
    });
    const guest = await playGuest(network, await attacher.attach(vm), vm.boot.link);
    await guest.serve("0.0.0.0", 80, "guest");

    expect(await network.ask("127.0.0.1", 8080)).toBe("guest 10.20.1.1");
    expect(await network.ask("127.0.0.1", 8081)).toBe("guest 10.20.1.1");
    expect(await network.ask("203.0.113.1", 8081)).toContain("guest ");
    expect(await network.ask("203.0.113.1", 8082)).toContain("guest ");
    expect(await network.ask("127.0.0.1", 8082)).toBe("ECONNREFUSED");
    expect(await outside.ask("203.0.113.1", 8081)).toBe("guest 203.0.113.2");
    expect(await outside.ask("203.0.113.1", 8082)).toBe("guest 203.0.113.2");
    expect(await outside.ask("203.0.113.1", 8080)).toBe("ECONNREFUSED");
  });

  it("carry datagrams too, also to a guest that otherwise reaches its root alone", async () => {
    const { network, state, attacher } = await sampleHost();
    const vm = await sampleVm(state, "web", {
      guestAccess: "nfs-only",
      portForwards: [{ hostPort: 5353, guestPort: 53, protocol: "udp", hostAddress: "127.0.0.1" }],
    });
    const guest = await playGuest(network, await attacher.attach(vm), vm.boot.link);
    await guest.serveDatagrams(53, "guest");
    await network.serveDatagrams(53, "host");
    expect(await network.askDatagram("127.0.0.1", 5353, "hello")).toBe("guest hello");
    expect(await guest.askDatagram("10.20.1.1", 53, "hello")).toBe("silence");
  });

  it("change in one step while the VM runs, and go with it", async () => {
    const { network, state, attacher } = await sampleHost();
    const vm = await sampleVm(state, "web", { portForwards: [tcp(8080, 80, "127.0.0.1")] });
    const guest = await playGuest(network, await attacher.attach(vm), vm.boot.link);
    await guest.serve("0.0.0.0", 80, "guest");
    const forwards = [tcp(8090, 80, "127.0.0.1")];
    await attacher.order({ act: "forward", vm: { ...vm, boot: { ...vm.boot, portForwards: forwards } } });
    expect(await network.ask("127.0.0.1", 8090)).toBe("guest 10.20.1.1");
    expect(await network.ask("127.0.0.1", 8080)).toBe("ECONNREFUSED");
    await attacher.order({ act: "forward", vm: { ...vm, boot: { ...vm.boot, portForwards: [] } } });
    expect(await network.ask("127.0.0.1", 8090)).toBe("ECONNREFUSED");
    await attacher.detach(vm);
    expect((await network.inventory()).rules).toBe("");
  });

  it("open the host's loopback services to no guest, its own or another", async () => {
    const { network, state, attacher } = await sampleHost();
    await network.serve("127.0.0.1", 7000, "secret");
    const [web, other] = [
      await sampleVm(state, "web", { portForwards: [tcp(8080, 80, "127.0.0.1")] }),
      await sampleVm(state, "other"),
    ];
    const links = [web.boot.link, other.boot.link] as const;
    const guest = await playGuest(network, await attacher.attach(web), links[0]);
    const neighbour = await playGuest(network, await attacher.attach(other), links[1]);
    // A guest that sends to the host what is for a loopback address.
    const hijack =
      "sysctl -qw net.ipv4.conf.all.route_localnet=1; ip address del 127.0.0.1/8 dev lo; ip rule del pref 0; ip rule add pref 9 lookup local; ip route add table 7 127.0.0.1 via 10.20.1.1 dev eth0; ip rule add pref 1 to 127.0.0.1 lookup 7";
    await guest.sh(hijack);
    await neighbour.sh(hijack);
    expect(await guest.ask("127.0.0.1", 7000)).toBe("silence");
    expect(await neighbour.ask("127.0.0.1", 7000)).toBe("silence");
    await attacher.detach(web);
    expect(await neighbour.ask("127.0.0.1", 7000)).toBe("silence");
    // What keeps it away is the rule: without our table the host answers.
    await network.sh("nft delete table ip pulumi_microvm");
    expect(await neighbour.ask("127.0.0.1", 7000)).toContain("secret");
  });

  it("from 127.0.0.1 are refused on a bridge that is not ours, unless it allows them", async () => {
    const { network, state, attacher } = await sampleHost();
    await network.sh("ip link add br7 type bridge; ip address add 10.7.0.1/24 dev br7; ip link set br7 up");
    const on = { network: { bridge: "br7", subnet: "10.7.0.0/24" } };
    const vm = await sampleVm(state, "web", { ...on, portForwards: [tcp(8080, 80, "127.0.0.1")] });
    const [answer] = await attacher.orders([{ act: "attach", vm }]);
    expect(answer).toMatchObject({
      code: "host-unusable",
      text: expect.stringContaining("route_localnet=1"),
    });
    await attacher.detach(vm);
    await network.sh("sysctl -qw net.ipv4.conf.br7.route_localnet=1");
    const guest = await playGuest(network, await attacher.attach(vm), vm.boot.link);
    await guest.serve("0.0.0.0", 80, "guest");
    expect(await network.ask("127.0.0.1", 8080)).toBe("guest 10.7.0.1");
  });
});

/** What a guest meets on two other hosts, at the root's port and another, and on its own. */
const seen = async (guest: Namespace) => [
  await guest.ask("203.0.113.2", 2049),
  await guest.ask("203.0.113.2", 22),
  await guest.ask("10.7.0.50", 2049),
  await guest.ask("10.7.0.50", 22),
  await guest.ask("10.7.0.1", 2049),
];

describe.skipIf(!mayUseNamespaces)(`guestAccess "nfs-only" of a tap${where}`, { timeout: 60_000 }, () => {
  it("leaves a guest its root's ports on this host and nothing else", async () => {
    const { network, state, attacher } = await sampleHost();
    const outside = await Namespace.make();
    await network.cable("up0", "203.0.113.1/24", outside, "203.0.113.2/24");
    await network.sh("sysctl -qw net.ipv4.ip_forward=1");
    const vm = await sampleVm(state, "web", {
      guestAccess: "nfs-only",
      portForwards: [tcp(8080, 80, "127.0.0.1")],
    });
    const control = await sampleVm(state, "control", { portForwards: [tcp(8081, 80, "0.0.0.0")] });
    const guest = await playGuest(network, await attacher.attach(vm), vm.boot.link);
    const other = await playGuest(network, await attacher.attach(control), control.boot.link);
    for (const port of [2049, 20_048, 22]) await network.serve("0.0.0.0", port, `port-${port}`);
    await outside.serve("203.0.113.2", 80, "outside");
    await guest.serve("0.0.0.0", 80, "guest");
    await other.serve("0.0.0.0", 80, "control");

    expect(await guest.ask("10.20.1.1", 2049)).toContain("port-2049");
    expect(await guest.ask("10.20.1.1", 20_048)).toContain("port-20048");
    expect(await guest.ask("10.20.1.1", 22)).toBe("silence");
    expect(await guest.ask("203.0.113.1", 2049)).toBe("silence");
    expect(await guest.ask("203.0.113.2", 80)).toBe("silence");
    expect(await guest.ask("10.20.1.1", 8081)).toBe("silence");
    expect(await guest.ask(control.boot.link.guestAddress, 80)).not.toContain("control");
    // Answers to what comes in by a forward pass.
    expect(await network.ask("127.0.0.1", 8080)).toContain("guest");
    // Under another address, or with IPv6, it reaches not even its root.
    await guest.sh("ip address add 10.20.77.77/16 dev eth0; ip route add 10.20.1.1 dev eth0 src 10.20.77.77");
    expect(await guest.ask("10.20.1.1", 2049)).toBe("silence");
    // The control: without it all of that is open.
    expect(await other.ask("10.20.1.1", 22)).toContain("port-22");
    expect(await other.ask("203.0.113.2", 80)).toContain("outside");
    await attacher.detach(vm);
    expect(await network.sh("nft list tables")).toBe("table ip pulumi_microvm\n");
  });

  it("leaves a guest its root's ports on another host, by way of this one and on the bridge itself", async () => {
    const { network, state, attacher } = await sampleHost();
    const [far, near] = [await Namespace.make(), await Namespace.make()];
    await network.cable("up0", "203.0.113.1/24", far, "203.0.113.2/24");
    await network.sh(
      "sysctl -qw net.ipv4.ip_forward=1; ip link add br7 type bridge; ip address add 10.7.0.1/24 dev br7; ip link set br7 up",
    );
    await network.cable("lan0", "10.255.0.1/30", near, "10.7.0.50/24");
    await network.sh("ip address flush dev lan0; ip link set lan0 master br7");
    const on = { network: { bridge: "br7", subnet: "10.7.0.0/24" }, guestAccess: "nfs-only" } as const;
    const [routed, bridged] = [
      await sampleVm(state, "routed", { ...on, server: "203.0.113.2" }),
      await sampleVm(state, "bridged", { ...on, server: "10.7.0.50" }),
    ];
    const first = await playGuest(network, await attacher.attach(routed), routed.boot.link);
    const second = await playGuest(network, await attacher.attach(bridged), bridged.boot.link);
    for (const [server, address] of [
      [far, "203.0.113.2"],
      [near, "10.7.0.50"],
    ] as const) {
      for (const port of [2049, 22]) await server.serve(address, port, `port-${port}`);
    }
    await network.serve("0.0.0.0", 2049, "host");
    const { guestAddress } = bridged.boot.link;
    expect(await seen(first)).toEqual([
      "port-2049 203.0.113.1",
      "silence",
      expect.not.stringContaining("port"),
      expect.not.stringContaining("port"),
      "silence",
    ]);
    expect(await seen(second)).toEqual([
      "silence",
      "silence",
      `port-2049 ${guestAddress}`,
      "silence",
      "silence",
    ]);
  });
});
