/** Whether this host can give a guest a tap, and what of this host stands between the guest and the world. */

import { accessSync, constants } from "node:fs";

import { z } from "zod";

import type { PortForward, TapLink } from "../boot/boot.js";
import { isBehind } from "../boot/network.js";
import { hostPlaceOf, isGuestAddress, subnetOf } from "../boot/tap-link.js";
import { MicroVmError, systemCodeOf } from "../errors.js";
import {
  assertMayAdminister,
  isInstalled,
  mayAdminister,
  networkProgram,
  run,
} from "../host/network/command.js";
import {
  addressesOf,
  assertFits,
  type Interface,
  interfaces,
  isForwarding,
  isOwnBridge,
} from "../host/network/links.js";
import { TABLE } from "../host/network/rules.js";
import type { Finding } from "./finding.js";

/** What is asked of the network; what is not known yet is left out. */
export interface TapNeeds {
  readonly link: TapLink;
  readonly portForwards: readonly PortForward[];
  /** IPv4 address of the NFS server as the guest sees it, and its ports; absent on a disk root. */
  readonly server?: { readonly address: string; readonly ports: readonly number[] };
}

/** What is seen is good for a preview, in milliseconds. */
const FRESH_MILLISECONDS = 5000;

/** Looks again only after a while: hundreds of VMs ask in a row. */
function once<Seen>(look: () => Promise<Seen>): () => Promise<Seen> {
  let last: { readonly at: number; readonly seen: Promise<Seen> } | undefined;
  return async () => {
    const now = performance.now();
    if (last === undefined || now - last.at > FRESH_MILLISECONDS) last = { at: now, seen: look() };
    return await last.seen;
  };
}

/** The interfaces of this host, seen within the last 5 s. */
export const seenInterfaces: () => Promise<readonly Interface[]> = once(interfaces);

/** What keeps the host from making the network of a tap (certain), and what may keep the guest from using it. */
export async function tapFindings(needs: TapNeeds): Promise<readonly Finding[]> {
  const { link, portForwards } = needs;
  try {
    networkProgram("ip");
    if (link.asIs === true) return await asIsFindings(link);
    assertMayAdminister();
    assertTapDevice();
    if (portForwards.length > 0 || link.nfsOnly === true) networkProgram("nft");
    const all = await seenInterfaces();
    const unfit = findingOf(() => assertFits(link, all)) ?? findingOf(() => assertApart(link, all));
    // A bridge of ours goes with its last VM, which this very up may replace.
    if (unfit !== undefined)
      return [{ ...unfit, certain: unfit.input !== "network.subnet" || !all.some(isOwnBridge) }];
    return [...(await beyondFindings(needs)), ...(await dropFindings(needs))];
  } catch (error) {
    return [toFinding(error)];
  }
}

/** Of a network that is used as it is, all else is its owner's. */
async function asIsFindings(link: TapLink): Promise<readonly Finding[]> {
  const all = await seenInterfaces();
  const unfit = findingOf(() => assertFits(link, all));
  return unfit === undefined ? [] : [unfit];
}

function findingOf(look: () => void): Finding | undefined {
  try {
    look();
    return undefined;
  } catch (error) {
    return toFinding(error);
  }
}

function toFinding(error: unknown): Finding {
  if (!(error instanceof MicroVmError)) throw error;
  const { input = "backend", code, text } = error;
  return { input, code, text, certain: true };
}

const TAP_DEVICE = "/dev/net/tun";

/** @throws MicroVmError `host-unusable` when no tap can be made or opened. */
function assertTapDevice(): void {
  try {
    accessSync(TAP_DEVICE, constants.R_OK | constants.W_OK);
  } catch (error) {
    throw new MicroVmError(
      "host-unusable",
      `expected ${TAP_DEVICE}, by which taps are made, and it cannot be opened (${systemCodeOf(error)}). Load the kernel module tun (modprobe tun), or let this container have the device`,
      { input: "backend", cause: error },
    );
  }
}

/**
 * Another interface on the same network would take the guest's packets, or we its own.
 *
 * @throws MicroVmError `host-unusable`
 */
function assertApart(link: TapLink, all: readonly Interface[]): void {
  const ours = placeOf(link);
  for (const found of all) {
    if (found.ifname === link.bridge) continue;
    for (const address of addressesOf(found)) {
      const theirs = hostPlaceOf(address);
      if (theirs === undefined) continue;
      const wider = theirs.prefixLength < ours.prefixLength ? theirs : ours;
      const narrower = wider === ours ? theirs : ours;
      if (subnetOf({ ...narrower, prefixLength: wider.prefixLength }) !== subnetOf(wider)) continue;
      throw new MicroVmError(
        "host-unusable",
        `expected a network of its own for ${link.bridge}, and ${subnetOf(ours)} overlaps with ${address} of ${found.ifname}. Give another, such as 172.31.77.0/24`,
        { input: "network.subnet" },
      );
    }
  }
}

function placeOf({ gatewayAddress, prefixLength }: TapLink) {
  return { hostAddress: gatewayAddress, prefixLength: prefixLength ?? 32 };
}

/** Whether the guest's server is behind another interface of this host. */
function isBeyond(address: string, link: TapLink): boolean {
  return !isBehind(address, link) && !isGuestAddress(address, placeOf(link));
}

/** What needs this host to pass packets on. It is the person's to switch that on: it concerns all of the host's interfaces. */
async function beyondFindings({ link, server, portForwards }: TapNeeds): Promise<Finding[]> {
  const rest = { code: "host-unusable", certain: false } as const;
  if (!isInstalled("nft")) {
    const text = `nft is not installed, so that the guest gets no rule that lets it reach further than this host (Debian and Ubuntu: apt-get install nftables)`;
    return link.nfsOnly === true ? [] : [{ ...rest, input: "guestAccess", text }];
  }
  if (await isForwarding()) return [];
  const how =
    "Switch it on with sysctl -w net.ipv4.ip_forward=1, which concerns every interface of this host";
  const off = "this host passes no packets on (net.ipv4.ip_forward is 0)";
  if (server !== undefined && isBeyond(server.address, link)) {
    const text = `the guest cannot reach ${server.address}: ${off}. ${how}`;
    return [{ ...rest, certain: true, input: "nfsServer", text }];
  }
  const isPublished = portForwards.some(({ hostAddress }) => hostAddress !== "127.0.0.1");
  if (link.nfsOnly === true && !isPublished) return [];
  const what = isPublished
    ? "the guest reaches this host alone, and its forwards take connections of this host alone"
    : "the guest reaches this host alone";
  return [{ ...rest, input: isPublished ? "portForwards" : "guestAccess", text: `${what}: ${off}. ${how}` }];
}

/** A base chain that drops what it does not know. */
interface DroppingChain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly hook: string;
}

/** The chains in `nft -json list ruleset` (libnftables-json(5)), as far as they are read. */
const ruleset = z.object({
  nftables: z.array(
    z.looseObject({
      chain: z
        .looseObject({
          family: z.string(),
          table: z.string(),
          name: z.string(),
          hook: z.string().optional(),
          policy: z.string().optional(),
        })
        .optional(),
    }),
  ),
});

const droppingChains = once(async (): Promise<DroppingChain[]> => {
  if (!isInstalled("nft") || !mayAdminister()) return [];
  const { nftables } = ruleset.parse(JSON.parse(await run("nft", ["-json", "list", "chains"])));
  return nftables.flatMap(({ chain }) => {
    if (chain?.policy !== "drop" || chain.hook === undefined || chain.table === TABLE) return [];
    if (chain.family !== "ip" && chain.family !== "inet") return [];
    const { family, table, name, hook } = chain;
    return [{ family, table, name, hook }];
  });
});

/** What another table drops stays dropped, whatever ours accepts; its rules may let the guest through or not. */
async function dropFindings({ link, server, portForwards }: TapNeeds): Promise<Finding[]> {
  const chains = await droppingChains();
  const isOnHost = server !== undefined && isBehind(server.address, link);
  const passes =
    link.nfsOnly !== true ||
    (server !== undefined && isBeyond(server.address, link)) ||
    portForwards.some(({ hostAddress }) => hostAddress !== "127.0.0.1");
  return chains.flatMap(({ family, table, name, hook }) => {
    const where = `the chain ${name} of the nftables table ${family} ${table} drops what none of its rules accepts`;
    const allow = (match: string) => `nft insert rule ${family} ${table} ${name} ${match} accept`;
    const rest = { code: "host-unusable", certain: false } as const;
    if (hook === "input" && isOnHost) {
      const match = `iifname ${link.bridge} tcp dport { ${server.ports.join(", ")} }`;
      return [
        {
          ...rest,
          input: "nfsServer",
          text: `${where}, perhaps the guest's requests to ${server.address} too. If so: ${allow(match)}`,
        },
      ];
    }
    if (hook === "forward" && passes) {
      const both = `${allow(`iifname ${link.bridge}`)}; ${allow(`oifname ${link.bridge}`)}`;
      return [
        {
          ...rest,
          input: "guestAccess",
          text: `${where}, perhaps all between the guest and what is beyond this host too. If so: ${both}`,
        },
      ];
    }
    return [];
  });
}
