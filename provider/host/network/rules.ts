/** The nftables rules of one VM, as text for nft(8). Pure; each carries the VM's instance, by which it is found again. */

import type { PortForward, Root, TapLink } from "../../boot/boot.js";
import { subnetOf } from "../../boot/tap-link.js";

/** Our tables' name, one per family; nothing else of ours is in nftables. */
export const TABLE = "pulumi_microvm";

/** The families that have a table of ours: `bridge` only while a guest may reach its root alone. */
export const FAMILIES = ["ip", "bridge"] as const;

export type Family = (typeof FAMILIES)[number];

/** Where a rule goes. */
interface Rule {
  readonly family: Family;
  readonly chain: string;
  readonly text: string;
}

/** What decides the rules of a VM. */
export interface RuledVm {
  readonly instance: string;
  readonly link: TapLink;
  /** Name of the tap. */
  readonly tap: string;
  /** Whether the tap and its bridge are ours: guests on them are kept from each other. */
  readonly isApart: boolean;
  readonly portForwards: readonly PortForward[];
  /** Whether packets from 127.0.0.1 may leave by the bridge, so that forwards take connections to it. */
  readonly fromLoopback: boolean;
  readonly root: Root;
}

/**
 * Our base chains. Each accepts by default: what another table drops stays dropped, and nothing that is not a VM's is touched.
 * Priorities by number: nft takes the name `dstnat` for no output chain before 1.0.7.
 */
const CHAINS: Readonly<Record<Family, Readonly<Record<string, string>>>> = {
  ip: {
    raw: "type filter hook prerouting priority -300; policy accept;",
    prerouting: "type nat hook prerouting priority -100; policy accept;",
    output: "type nat hook output priority -100; policy accept;",
    input: "type filter hook input priority 0; policy accept;",
    forward: "type filter hook forward priority 0; policy accept;",
    postrouting: "type nat hook postrouting priority 100; policy accept;",
  },
  bridge: {
    prerouting: "type filter hook prerouting priority -300; policy accept;",
    forward: "type filter hook forward priority 0; policy accept;",
  },
};

/** The mark of an instance's rules: their comment. */
export function commentOf(instance: string): string {
  return `microvm ${instance}`;
}

/** Commands that add all rules of a VM, and the tables and chains where those are missing. */
export function additionsOf(vm: RuledVm): string[] {
  const rules = [...addressRules(vm), ...forwardRules(vm), ...apartRules(vm), ...nfsOnlyRules(vm)];
  const families = FAMILIES.filter((family) => rules.some((rule) => rule.family === family));
  return [
    ...families.flatMap((family) => [
      `add table ${family} ${TABLE}`,
      ...Object.entries(CHAINS[family]).map(
        ([chain, text]) => `add chain ${family} ${TABLE} ${chain} { ${text} }`,
      ),
    ]),
    ...rules.map(
      ({ family, chain, text }) =>
        `add rule ${family} ${TABLE} ${chain} ${text} comment "${commentOf(vm.instance)}"`,
    ),
  ];
}

/** A server at this host's address on a bridge. */
export interface BridgedServer {
  readonly bridge: string;
  /** This host's address on it. */
  readonly hostAddress: string;
  readonly ports: readonly number[];
}

/**
 * Commands that keep a server to this host and whoever is on the bridge. To listen at the bridge's address alone does not: Linux takes a
 * packet to an address of its own on every interface, so a neighbour of this host reaches it with a route by this host.
 */
export function serverAdditions(instance: string, { bridge, hostAddress, ports }: BridgedServer): string[] {
  const elsewhere = `iifname != { "lo", "${bridge}" } ip daddr ${hostAddress} tcp dport { ${ports.join(", ")} }`;
  return [
    `add table ip ${TABLE}`,
    `add chain ip ${TABLE} raw { ${CHAINS.ip["raw"]} }`,
    `add rule ip ${TABLE} raw ${elsewhere} drop comment "${commentOf(instance)}"`,
  ];
}

const ip = (chain: string, text: string): Rule => ({ family: "ip", chain, text });
const bridge = (chain: string, text: string): Rule => ({ family: "bridge", chain, text });

/**
 * What leaves this host from the guest does so by the host's address. What a guest sends to the host's loopback addresses is dropped,
 * even though a neighbour's forward may have made the bridge take it (route_localnet).
 */
function addressRules({ link }: RuledVm): Rule[] {
  const { guestAddress } = link;
  return [
    ip("raw", `iifname "${link.bridge}" ip daddr 127.0.0.0/8 drop`),
    ip(
      "postrouting",
      `ip saddr ${guestAddress} ip daddr != ${subnet(link)} oifname != "${link.bridge}" masquerade`,
    ),
  ];
}

function forwardRules({ link, portForwards, fromLoopback }: RuledVm): Rule[] {
  if (portForwards.length === 0) return [];
  const rules = portForwards.flatMap(({ hostAddress, hostPort, guestPort, protocol }) => {
    const to = hostAddress === "0.0.0.0" ? "fib daddr type local" : `ip daddr ${hostAddress}`;
    const rest = `${protocol} dport ${hostPort} dnat to ${link.guestAddress}:${guestPort}`;
    const notLoopback = fromLoopback || hostAddress !== "0.0.0.0" ? "" : "ip daddr != 127.0.0.0/8 ";
    // Connections of this host itself pass the output hook alone, and those from elsewhere never reach a loopback address.
    const ofThisHost = ip("output", `${to} ${notLoopback}${rest}`);
    return hostAddress === "127.0.0.1" ? [ofThisHost] : [ip("prerouting", `${to} ${rest}`), ofThisHost];
  });
  return [
    ...rules,
    // The answer must come back here: from a loopback address, or a neighbour on the bridge, it would go elsewhere.
    ip(
      "postrouting",
      `ip saddr { 127.0.0.0/8, ${subnet(link)} } ip daddr ${link.guestAddress} ct status dnat masquerade`,
    ),
  ];
}

/** Taps of ours are isolated on the bridge, but this host would pass a packet on from one guest to another as a router. */
function apartRules({ link, isApart }: RuledVm): Rule[] {
  if (!isApart) return [];
  const between = `iifname "${link.bridge}" oifname "${link.bridge}" ip daddr ${link.guestAddress}`;
  // A bit of several: "!= dnat" would ask for all of them.
  return [ip("forward", `${between} ct status & dnat == 0 drop`)];
}

/** Its root's server and ports, answers to what came in by a forward, and nothing else. */
function nfsOnlyRules({ link, tap, root }: RuledVm): Rule[] {
  if (link.nfsOnly !== true) return [];
  const { guestAddress } = link;
  const server = root.type === "nfs" ? `ip daddr ${root.server} tcp dport ${portSet(root)}` : undefined;
  const serverAddress = root.type === "nfs" ? root.server : link.gatewayAddress;
  const atHost = ["input", "forward"].flatMap((chain) => [
    ...(server === undefined ? [] : [ip(chain, `ip saddr ${guestAddress} ${server} accept`)]),
    ip(chain, `ip saddr ${guestAddress} ct direction reply ct state established accept`),
    ip(chain, `ip saddr ${guestAddress} drop`),
  ]);
  return [
    ...atHost,
    // The rules above know the guest by its address, so it has no other; neither IPv6 nor anything else.
    bridge("prerouting", `iifname "${tap}" arp saddr ip ${guestAddress} accept`),
    bridge("prerouting", `iifname "${tap}" ip saddr ${guestAddress} accept`),
    bridge("prerouting", `iifname "${tap}" drop`),
    // What stays on the bridge never meets the rules of the host.
    bridge("forward", `iifname "${tap}" arp daddr ip ${serverAddress} accept`),
    ...(server === undefined ? [] : [bridge("forward", `iifname "${tap}" ${server} accept`)]),
    bridge("forward", `iifname "${tap}" drop`),
  ];
}

function portSet({ port, mountPort }: Extract<Root, { type: "nfs" }>): string {
  const ports = new Set([port, ...(mountPort === "rpcbind" ? [RPCBIND_PORT] : [mountPort])]);
  return `{ ${[...ports].join(", ")} }`;
}

/** Port of rpcbind: RFC 1833 section 2.1. */
const RPCBIND_PORT = 111;

function subnet({ gatewayAddress, prefixLength }: TapLink): string {
  return subnetOf({ hostAddress: gatewayAddress, prefixLength: prefixLength ?? 32 });
}
