import { spawn } from "node:child_process";
import { join } from "node:path";
import { text } from "node:stream/consumers";

import { describe, expect, it } from "vitest";

import { tapLink } from "../../../provider/boot/tap-link.js";
import { ownBridgeAddress } from "../../../provider/host/network/links.js";
import type { Finding } from "../../../provider/preflight/finding.js";
import type { TapNeeds } from "../../../provider/preflight/tap-network.js";
import type { Spec } from "../../../provider/spec/spec.js";
import { mayUseNamespaces, Namespace } from "../host/network/namespace.js";
import type { TapQuestion } from "./tap-process.js";

const where = mayUseNamespaces ? "" : " (needs the right to make network namespaces, ip and nft)";

const linkOn = (network?: Spec["network"], guestAccess: Spec["guestAccess"] = "internet") =>
  tapLink({ vmName: "web", ip: "static", network, guestAccess });

const needsOf = (changes: Partial<TapNeeds> = {}): TapNeeds => ({
  link: linkOn(),
  portForwards: [],
  server: { address: "10.20.1.1", ports: [2049, 20_048] },
  ...changes,
});

async function ask(host: Namespace, question: TapQuestion, env: NodeJS.ProcessEnv = {}): Promise<Finding[]> {
  const [file, args] = host.command(process.execPath, "--import", "tsx", join(__dirname, "tap-process.ts"));
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, ...env } });
  child.stdin.end(JSON.stringify(question));
  return JSON.parse(await text(child.stdout)) as Finding[];
}

/** A host that passes packets on, or not. */
async function hostOf(script = "", forwards = true): Promise<Namespace> {
  const host = await Namespace.make();
  await host.sh(`sysctl -qw net.ipv4.ip_forward=${forwards ? 1 : 0}; ${script}`);
  return host;
}

const BRIDGE =
  "ip link add microvm0 type bridge; ip address add 10.20.1.1/16 dev microvm0; ip link set microvm0 up; ";

describe.skipIf(!mayUseNamespaces)(`preflight of a tap${where}`, { timeout: 30_000 }, () => {
  it("finds nothing wrong with a host that can, whether the bridge is there or not", async () => {
    expect(await ask(await hostOf(), { needs: needsOf() })).toEqual([]);
    expect(await ask(await hostOf(BRIDGE), { needs: needsOf() })).toEqual([]);
  });

  it("says without CAP_NET_ADMIN what it takes, and what takes none", async () => {
    const host = await hostOf();
    const [finding, ...more] = await ask(host.without("net_admin"), { needs: needsOf() });
    expect(more).toEqual([]);
    expect(finding).toMatchObject({ code: "host-unusable", input: "backend", certain: true });
    expect(finding?.text).toContain("CAP_NET_ADMIN");
    expect(finding?.text).toContain('{ type: "qemu" }');
  });

  it.each([
    [
      "an interface on the same network",
      "ip link add lan0 type veth peer name lan1; ip address add 10.20.99.1/24 dev lan0",
      {},
      "network.subnet",
      "10.20.0.0/16 overlaps with 10.20.99.1/24 of lan0",
    ],
    [
      "a bridge of another address",
      "ip link add br7 type bridge; ip address add 10.1.1.1/24 dev br7",
      { bridge: "br7" },
      "network.subnet",
      "expected br7 to have the address 10.20.1.1/16",
    ],
    ["a tap that is not there", "", { tap: "mine" }, "network.tap", "there is no interface mine"],
  ])("finds %s, for certain", async (_what, script, network, input, words) => {
    const found = await ask(await hostOf(script), { needs: needsOf({ link: linkOn(network) }) });
    expect(found).toMatchObject([{ input, certain: true, text: expect.stringContaining(words) }]);
  });

  it("is not sure of a bridge of ours with another network: it may go with the VM that is replaced", async () => {
    const address = ownBridgeAddress("microvm0");
    const host = await hostOf(
      `ip link add microvm0 address ${address} type bridge; ip address add 10.9.0.1/24 dev microvm0`,
    );
    const expected = [{ input: "network.subnet", certain: false }];
    expect(await ask(host, { needs: needsOf() })).toMatchObject(expected);
    const other = linkOn({ bridge: "br7", subnet: "10.9.0.0/24" });
    expect(await ask(host, { needs: needsOf({ link: other }) })).toMatchObject(expected);
  });

  it("says what a host that passes no packets on keeps from the guest, and leaves the switch to the person", async () => {
    const host = await hostOf("", false);
    const off = expect.stringContaining("net.ipv4.ip_forward is 0");
    expect(await ask(host, { needs: needsOf() })).toMatchObject([
      { input: "guestAccess", certain: false, text: off },
    ]);
    expect(await ask(host, { needs: needsOf({ link: linkOn(undefined, "nfs-only") }) })).toEqual([]);
    const server = { address: "203.0.113.9", ports: [2049] };
    expect(await ask(host, { needs: needsOf({ server }) })).toMatchObject([
      { input: "nfsServer", certain: true, text: off },
    ]);
    const portForwards = [{ hostPort: 80, guestPort: 80, protocol: "tcp", hostAddress: "0.0.0.0" }] as const;
    expect(await ask(host, { needs: needsOf({ portForwards }) })).toMatchObject([
      { input: "portForwards", certain: false, text: off },
    ]);
    expect(await host.sh("cat /proc/sys/net/ipv4/ip_forward")).toBe("0\n");
  });

  it("names the chains of others that may drop what the guest needs, and how to allow it there", async () => {
    const host = await hostOf(`nft -f - <<'END'
      table ip filter {
        chain FORWARD { type filter hook forward priority 0; policy drop; }
      }
      table inet firewall {
        chain in { type filter hook input priority 0; policy drop; }
        chain out { type filter hook output priority 0; policy drop; }
      }
END`);
    const found = await ask(host, { needs: needsOf() });
    expect(found.map(({ certain }) => certain)).toEqual([false, false]);
    const texts = found.map(({ text: words }) => words).join("\n");
    expect(texts).toContain("the chain FORWARD of the nftables table ip filter");
    expect(texts).toContain("nft insert rule ip filter FORWARD iifname microvm0 accept");
    expect(texts).toContain(
      "nft insert rule inet firewall in iifname microvm0 tcp dport { 2049, 20048 } accept",
    );
    // What it tells to run, runs.
    await host.sh("nft insert rule inet firewall in iifname microvm0 tcp dport { 2049, 20048 } accept");
  });
});

describe.skipIf(!mayUseNamespaces)(
  `preflight of an NFS server for a tap${where}`,
  { timeout: 30_000 },
  () => {
    const place = { hostServer: "10.20.1.1", link: linkOn() };

    it("finds nothing wrong with one at the bridge's address", async () => {
      expect(await ask(await hostOf(BRIDGE), { export: place, server: "0.0.0.0" })).toEqual([]);
      expect(await ask(await hostOf(BRIDGE), { export: place, server: "10.20.1.1" })).toEqual([]);
    });

    it("names one that is bound to 127.0.0.1 alone, for certain", async () => {
      const found = await ask(await hostOf(BRIDGE), { export: place, server: "127.0.0.1" });
      expect(found).toMatchObject([{ code: "nfs-unreachable", certain: true }]);
      expect(found[0]?.text).toContain("bound to 127.0.0.1 alone");
      expect(found[0]?.text).toContain("Bind it to 10.20.1.1 or 0.0.0.0");
    });

    it("finds one that is down, for certain", async () => {
      const found = await ask(await hostOf(BRIDGE), { export: place });
      expect(found).toMatchObject([{ code: "nfs-unreachable", certain: true, input: "nfsPort" }]);
    });

    it("says before the bridge is there what was not asked", async () => {
      const found = await ask(await hostOf(), { export: place, server: "127.0.0.1" });
      expect(found).toMatchObject([
        { certain: false, text: expect.stringContaining("and not at 10.20.1.1") },
      ]);
      const down = await ask(await hostOf(), { export: place });
      expect(down).toMatchObject([{ code: "nfs-unreachable", certain: true }]);
    });

    it("is not sure of one on another host, which the guest asks from an address of its own", async () => {
      const other = await Namespace.make();
      const host = await hostOf();
      await host.cable("up0", "203.0.113.1/24", other, "203.0.113.2/24");
      const found = await ask(host, { export: { ...place, hostServer: "203.0.113.2" } });
      expect(found).toMatchObject([{ code: "nfs-unreachable", certain: false }]);
    });
  },
);
