import { rm } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { tapNameOf } from "../../../../provider/boot/boot.js";
import { mayUseNamespaces, Namespace } from "./namespace.js";
import { Attacher, playGuest, sampleHost, sampleVm } from "./vms.js";

const where = mayUseNamespaces ? "" : " (needs the right to make network namespaces, ip and nft)";

describe.skipIf(!mayUseNamespaces)(`the network of a tap${where}`, { timeout: 60_000 }, () => {
  it("makes a bridge, an isolated tap and rules, and leaves nothing when the last VM goes", async () => {
    const { network, state, attacher } = await sampleHost();
    const before = await network.inventory();
    const [web, database] = [await sampleVm(state, "web", { vcpus: 2 }), await sampleVm(state, "database")];
    const { attachment } = await attacher.order({ act: "attach", vm: web });
    expect(attachment).toEqual({ tap: tapNameOf(web.instance), queuePairs: 2, vsockCid: expect.any(Number) });
    await attacher.attach(database);

    const links = JSON.parse(await network.sh("ip -details -json address show")) as Record<string, unknown>[];
    const link = (name: string) => links.find(({ ifname }) => ifname === name);
    expect(link("microvm0")).toMatchObject({
      linkinfo: { info_kind: "bridge" },
      addr_info: [{ local: "10.20.1.1", prefixlen: 16 }],
    });
    expect(link(tapNameOf(web.instance))).toMatchObject({
      master: "microvm0",
      flags: expect.arrayContaining(["UP"]),
      linkinfo: {
        info_data: { type: "tap", vnet_hdr: true, multi_queue: true },
        info_slave_data: { isolated: true },
      },
      addr_info: [],
    });
    expect(link(tapNameOf(database.instance))).toMatchObject({
      linkinfo: { info_data: { multi_queue: false } },
    });

    await attacher.detach(web);
    const meanwhile = await network.inventory();
    expect(meanwhile.interfaces).toEqual(["lo", "microvm0", tapNameOf(database.instance)].toSorted());
    expect(meanwhile.rules).not.toContain(web.instance);
    expect(meanwhile.rules).toContain(database.instance);
    await attacher.detach(database);
    expect(await network.inventory()).toEqual(before);
  });

  it("attaches again to the same, with another number of queues and other forwards too", async () => {
    const { network, state, attacher } = await sampleHost();
    const vm = await sampleVm(state, "web");
    const first = await attacher.order({ act: "attach", vm });
    const once = await network.inventory();
    expect(await attacher.order({ act: "attach", vm })).toEqual(first);
    expect((await network.inventory()).interfaces).toEqual(once.interfaces);
    const larger = { ...vm, boot: { ...vm.boot, vcpus: 4 } };
    const { attachment } = await attacher.order({ act: "attach", vm: larger });
    expect(attachment).toEqual({ ...first.attachment, queuePairs: 4 });
    const rules = await network.sh("nft list ruleset");
    expect(rules.match(/masquerade/g)).toHaveLength(1);
  });

  it("uses a bridge that is there, and leaves it and every rule of others byte for byte", async () => {
    const { network, state, attacher } = await sampleHost();
    await network.sh(
      "ip link add br7 type bridge; ip address add 192.168.7.1/24 dev br7; ip link set br7 up",
    );
    await network.sh(`nft -f - <<'END'
      table inet filter {
        set s { type ipv4_addr; elements = { 10.0.0.1 }; }
        chain forward { type filter hook forward priority 0; policy drop; ip saddr @s counter accept; }
      }
      table ip nat {
        chain prerouting { type nat hook prerouting priority -100; tcp dport 99 dnat to 10.9.9.9:99 comment "microvm 1"; }
      }
      table bridge filter {
        chain input { type filter hook input priority 0; ether type ip6 counter; }
      }
END`);
    const before = await network.inventory();
    const others = "nft -a list table inet filter; nft -a list table ip nat; ip -4 -o address show br7";
    const theirs = await network.sh(others);
    const forward = { hostPort: 8080, guestPort: 80, protocol: "tcp", hostAddress: "192.168.7.1" } as const;
    const vm = await sampleVm(state, "web", {
      network: { bridge: "br7", subnet: "192.168.7.0/24" },
      guestAccess: "nfs-only",
      portForwards: [forward],
    });
    await attacher.attach(vm);
    expect(await network.sh(others)).toBe(theirs);
    expect(await network.sh("nft list tables")).toContain("table bridge pulumi_microvm");
    await attacher.detach(vm);
    expect(await network.inventory()).toEqual(before);
  });

  it("uses a tap that is there, opens it as it is made, and leaves it", async () => {
    const { network, state, attacher } = await sampleHost();
    await network.sh(
      "ip tuntap add dev mine mode tap vnet_hdr multi_queue; ip address add 172.16.5.1/30 dev mine; ip link set mine up",
    );
    const before = await network.inventory();
    const vm = await sampleVm(state, "web", { network: { tap: "mine", subnet: "172.16.5.1/30" } });
    const { attachment } = await attacher.order({ act: "attach", vm });
    expect(attachment).toMatchObject({ tap: "mine", queuePairs: 2 });
    expect(vm.boot.link.guestAddress).toBe("172.16.5.2");
    await attacher.detach(vm);
    expect(await network.inventory()).toEqual(before);
  });

  it.each([
    [
      "a bridge of another address",
      "ip link add br7 type bridge; ip address add 10.1.1.1/24 dev br7",
      { bridge: "br7" },
      "expected br7 to have the address 10.20.1.1/16, and it has 10.1.1.1/24",
    ],
    [
      "what is no bridge",
      "ip link add br7 type veth peer name br8",
      { bridge: "br7" },
      "expected a bridge, and br7 is an interface of another kind",
    ],
    [
      "a tap that is not there",
      "true",
      { tap: "mine" },
      "expected an existing tap, and there is no interface mine",
    ],
    [
      "what is no tap",
      "ip link add mine type veth peer name mine2",
      { tap: "mine" },
      "expected a tap, and mine is an interface of another kind",
    ],
  ])("refuses %s", async (_what, script, input, text) => {
    const { network, state, attacher } = await sampleHost();
    await network.sh(script);
    const before = await network.inventory();
    const vm = await sampleVm(state, "web", { network: input });
    const [answer] = await attacher.orders([{ act: "attach", vm }]);
    expect(answer).toMatchObject({ code: "host-unusable", text: expect.stringContaining(text) });
    await attacher.detach(vm);
    expect(await network.inventory()).toEqual(before);
  });

  it("gives one address to one VM, and says whose it is", async () => {
    const { state, attacher } = await sampleHost();
    await attacher.attach(await sampleVm(state, "web", { ip: "10.20.0.9" }));
    const [answer] = await attacher.orders([
      { act: "attach", vm: await sampleVm(state, "other", { ip: "10.20.0.9" }) },
    ]);
    expect(answer).toMatchObject({ code: "address-taken", text: expect.stringContaining("the VM web's") });
  });

  it("gives an existing tap to one VM", async () => {
    const { network, state, attacher } = await sampleHost();
    await network.sh("ip tuntap add dev mine mode tap; ip address add 172.16.5.1/24 dev mine");
    const on = { tap: "mine", subnet: "172.16.5.1/24" };
    const first = await sampleVm(state, "web", { network: on });
    await attacher.attach(first);
    const second = await sampleVm(state, "other", { network: on });
    const [answer] = await attacher.orders([{ act: "attach", vm: second }]);
    expect(answer).toMatchObject({ code: "host-unusable", text: expect.stringContaining("the VM web's") });
    await attacher.detach(second);
    await attacher.detach(first);
    await attacher.attach(second);
  });

  it("clears away what is left of a VM whose record is gone, at an address that another takes", async () => {
    const { network, state, attacher } = await sampleHost();
    const lost = await sampleVm(state, "lost", { ip: "10.20.0.9", guestAccess: "nfs-only" });
    await attacher.attach(lost);
    await rm(join(state, "lost"), { recursive: true });
    const vm = await sampleVm(state, "web", { ip: "10.20.0.9" });
    await attacher.attach(vm);
    const { interfaces, rules } = await network.inventory();
    expect(interfaces).toEqual(["lo", "microvm0", tapNameOf(vm.instance)].toSorted());
    expect(rules).not.toContain(lost.instance);
  });

  it("leaves the address to a VM that still runs, though its record is gone", async () => {
    const { network, state, attacher } = await sampleHost();
    const lost = await sampleVm(state, "lost", { ip: "10.20.0.9" });
    const tap = await attacher.attach(lost);
    await playGuest(network, tap, lost.boot.link);
    await network.sh(`ip link set ${tap} alias "pulumi-microvm ${lost.instance} 10.20.0.9"`);
    await rm(join(state, "lost"), { recursive: true });
    const vm = await sampleVm(state, "web", { ip: "10.20.0.9" });
    const [answer] = await attacher.orders([{ act: "attach", vm }]);
    expect(answer).toMatchObject({
      code: "address-taken",
      text: expect.stringContaining(`still runs on the tap ${tap}`),
    });
    await attacher.detach(vm);
    await attacher.detach(lost);
    expect((await network.inventory()).interfaces).toEqual(["lo"]);
  });

  it("says without the right to change the network what it takes", async () => {
    const { network, state, runtime } = await sampleHost();
    const vm = await sampleVm(state, "web");
    const attacher = await Attacher.start(network.without("net_admin"), runtime);
    const [answer] = await attacher.orders([{ act: "attach", vm }]);
    expect(answer).toMatchObject({ code: "host-unusable", text: expect.stringContaining("CAP_NET_ADMIN") });
    await attacher.detach(vm);
  });

  it("attaches and detaches 16 VMs from two processes at once, nothing shared and nothing left", async () => {
    const { network, state, runtime, attacher } = await sampleHost();
    const other = await Attacher.start(network, runtime);
    const before = await network.inventory();
    const vms = await Promise.all(Array.from({ length: 16 }, (_, index) => sampleVm(state, `vm-${index}`)));
    const orders = vms.map((vm) => ({ act: "attach", vm }) as const);
    const answers = (
      await Promise.all([attacher.orders(orders.slice(0, 8)), other.orders(orders.slice(8))])
    ).flat();
    expect(answers.filter(({ code }) => code !== "ok")).toEqual([]);
    expect(new Set(answers.map(({ attachment }) => attachment?.vsockCid)).size).toBe(16);
    expect(new Set(answers.map(({ attachment }) => attachment?.tap)).size).toBe(16);
    const there = await network.inventory();
    expect(there.interfaces).toHaveLength(18);
    expect(there.rules.match(/masquerade/g)).toHaveLength(16);
    const ends = vms.map(({ instance }) => ({ act: "detach", instance }) as const);
    await Promise.all([other.orders(ends.slice(0, 8)), attacher.orders(ends.slice(8))]);
    expect(await network.inventory()).toEqual(before);
  });

  it("lets the guest reach what the host reaches, and no neighbour", async () => {
    const { network, state, attacher } = await sampleHost();
    const outside = await Namespace.make();
    await network.cable("up0", "203.0.113.1/24", outside, "203.0.113.2/24");
    await network.sh("sysctl -qw net.ipv4.ip_forward=1");
    await outside.serve("203.0.113.2", 80, "outside");
    const [web, neighbour] = [await sampleVm(state, "web"), await sampleVm(state, "neighbour")];
    const guest = await playGuest(network, await attacher.attach(web), web.boot.link);
    const other = await playGuest(network, await attacher.attach(neighbour), neighbour.boot.link);
    await network.serve("0.0.0.0", 2049, "host");
    await other.serve("0.0.0.0", 80, "neighbour");

    expect(await guest.ask("10.20.1.1", 2049)).toBe(`host ${web.boot.link.guestAddress}`);
    expect(await guest.ask("203.0.113.2", 80)).toBe("outside 203.0.113.1");
    expect(await network.ask(neighbour.boot.link.guestAddress, 80)).toBe("neighbour 10.20.1.1");
    expect(await guest.ask(neighbour.boot.link.guestAddress, 80)).not.toContain("neighbour");
    // By way of the host as a router.
    await guest.sh(`ip route add ${neighbour.boot.link.guestAddress} via 10.20.1.1`);
    expect(await guest.ask(neighbour.boot.link.guestAddress, 80)).toBe("silence");
  });
});
