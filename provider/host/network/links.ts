/** Interfaces of this host: the bridge and the taps on it. */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";

import { z } from "zod";

import { tapNameOf, type TapLink } from "../../boot/boot.js";
import { MicroVmError, messageOf, shown, systemCodeOf } from "../../errors.js";
import { isAbsent } from "../storage.js";
import { failureOf, networkProgram, run } from "./command.js";
import { withNetworkLock } from "./lock.js";

/** One network interface, as `ip -details -json address show` tells it (ip-address(8)). */
const interfaceSchema = z.looseObject({
  ifname: z.string(),
  flags: z.array(z.string()).default([]),
  /** Text that somebody has given it. */
  ifalias: z.string().optional(),
  /** Hardware address. */
  address: z.string().optional(),
  /** Name of the bridge that it is on. */
  master: z.string().optional(),
  linkinfo: z
    .looseObject({
      info_kind: z.string().optional(),
      info_data: z
        .looseObject({
          type: z.string().optional(),
          multi_queue: z.boolean().optional(),
          vnet_hdr: z.boolean().optional(),
        })
        .optional(),
    })
    .optional(),
  addr_info: z
    .array(
      z.looseObject({
        family: z.string().optional(),
        local: z.string().optional(),
        prefixlen: z.number().optional(),
      }),
    )
    .default([]),
});

export type Interface = z.output<typeof interfaceSchema>;

const LIST = ["-details", "-json", "address", "show"];

/** All interfaces of this host's network, with their addresses. */
export async function interfaces(): Promise<readonly Interface[]> {
  return parsed(await run("ip", LIST));
}

/**
 * Runs `act` as the only one that changes the network, with what is there now.
 *
 * @throws MicroVmError `host-unusable` when the network's lock is not to be had, or ip(8) fails.
 */
export async function withInterfaces<Result>(
  act: (all: readonly Interface[]) => Promise<Result>,
): Promise<Result> {
  return await withNetworkLock(
    async ({ code, printed, words }) => {
      if (code !== 0) throw failureOf("ip", LIST, words.trim(), `exit code ${code}`);
      return await act(parsed(printed));
    },
    [networkProgram("ip"), ...LIST],
  );
}

function parsed(text: string): readonly Interface[] {
  return z.array(interfaceSchema).parse(JSON.parse(text));
}

/** Names of all interfaces, without running a program. */
export function interfaceNames(): string[] {
  const lines = readFileSync("/proc/net/dev", "utf8").split("\n").slice(2);
  return lines.flatMap((line) => (line.includes(":") ? [line.slice(0, line.lastIndexOf(":")).trim()] : []));
}

export function find(all: readonly Interface[], name: string): Interface | undefined {
  return all.find(({ ifname }) => ifname === name);
}

export function isBridge({ linkinfo }: Interface): boolean {
  return linkinfo?.info_kind === "bridge";
}

export function isTap({ linkinfo }: Interface): boolean {
  return linkinfo?.info_kind === "tun" && linkinfo.info_data?.type === "tap";
}

/**
 * Hardware address of a bridge that we make: the mark by which we know it again, there from its first instant. A bridge without one
 * takes that of a port, and changes it under the guests' feet when a VM goes.
 */
export function ownBridgeAddress(bridge: string): string {
  const digits = createHash("sha256").update(`pulumi-microvm ${bridge}`).digest("hex").slice(0, 10);
  return ["02", ...(digits.match(/../g) ?? [])].join(":");
}

export function isOwnBridge(found: Interface): boolean {
  return isBridge(found) && found.address === ownBridgeAddress(found.ifname);
}

/** IPv4 addresses of an interface with their prefix lengths: `10.20.1.1/16`. */
export function addressesOf({ addr_info }: Interface): string[] {
  return addr_info.flatMap(({ family, local, prefixlen }) =>
    family === "inet" && local !== undefined ? [`${local}/${prefixlen}`] : [],
  );
}

/** The host's place on a link, as ip(8) takes it. */
function placeOf(link: TapLink): string {
  return `${link.gatewayAddress}/${link.prefixLength}`;
}

/**
 * What keeps an existing bridge (or routed tap) of the person's from carrying a link.
 *
 * @throws MicroVmError `host-unusable`, input `network.bridge`, `network.tap` or `network.subnet`.
 */
export function assertFits(link: TapLink, all: readonly Interface[]): void {
  const carrier = find(all, link.bridge);
  if (link.tap !== undefined) assertTapFits(link, link.tap, all);
  else if (carrier !== undefined && !isBridge(carrier)) {
    throw unfit(
      "network.bridge",
      `expected a bridge, and ${link.bridge} is an interface of another kind; name a bridge, or one that is not there yet`,
    );
  }
  if (carrier === undefined || addressesOf(carrier).includes(placeOf(link))) return;
  if (isOwnBridge(carrier) && addressesOf(carrier).length === 0) return; // half made, by a process that was killed
  const has = addressesOf(carrier).join(", ") || "none";
  throw unfit(
    "network.subnet",
    `expected ${link.bridge} to have the address ${placeOf(link)}, and it has ${has}. Give one of its addresses with its prefix as network.subnet, or another network.bridge`,
  );
}

function assertTapFits(link: TapLink, tap: string, all: readonly Interface[]): void {
  const found = find(all, tap);
  if (found === undefined) {
    throw unfit(
      "network.tap",
      `expected an existing tap, and there is no interface ${tap}. Make it (ip tuntap add dev ${tap} mode tap vnet_hdr), or leave it out to have one made`,
    );
  }
  if (!isTap(found)) throw unfit("network.tap", `expected a tap, and ${tap} is an interface of another kind`);
  const { master } = found;
  if (master !== undefined && master !== link.bridge) {
    throw unfit(
      "network.bridge",
      `expected the bridge that ${tap} is on, ${master}, got ${shown(link.bridge)}`,
    );
  }
  if (find(all, link.bridge) === undefined) {
    throw unfit(
      "network.bridge",
      `expected an existing interface beside network.tap, and there is no ${link.bridge}`,
    );
  }
}

function unfit(input: string, text: string): MicroVmError {
  return new MicroVmError("host-unusable", text, { input });
}

/** Lines that make the bridge of a link, or what a killed process left out of it; none for one of the person's. */
export function bridgeLines(link: TapLink, found: Interface | undefined): string[] {
  const { bridge } = link;
  if (found !== undefined && !isOwnBridge(found)) return [];
  return [
    ...(found === undefined
      ? [`link add name ${bridge} address ${ownBridgeAddress(bridge)} type bridge`]
      : []),
    `address replace ${placeOf(link)} dev ${bridge}`,
    `link set dev ${bridge} up`,
  ];
}

/** What a tap of ours says of its VM, beside its name which is too short for that. */
function aliasOf(instance: string, { guestAddress }: TapLink): string {
  return `pulumi-microvm ${instance} ${guestAddress}`;
}

/** A tap of ours whose VM has an address. */
export interface StrayTap {
  readonly tap: string;
  readonly instance: string;
  /** Whether a VMM has it open. */
  readonly isOpen: boolean;
}

/**
 * Taps of ours with the guest address of a link that are another VM's: of one that nobody knows any more, else the lease of the address
 * would have told.
 */
export function straysOf(link: TapLink, instance: string, all: readonly Interface[]): StrayTap[] {
  return all.flatMap(({ ifname: tap, ifalias = "", flags }) => {
    const [, other, address] = /^pulumi-microvm ([0-9a-f]{16}) (\S+)$/.exec(ifalias) ?? [];
    if (other === undefined || other === instance || address !== link.guestAddress) return [];
    return [{ tap, instance: other, isOpen: flags.includes("LOWER_UP") }];
  });
}

/** Pairs of queues with which a tap can be opened by a guest of so many vCPUs: only a `multi_queue` one with several. */
export function queuePairsOf(tap: Interface, vcpus: number): number {
  return tap.linkinfo?.info_data?.multi_queue === true ? Math.max(2, vcpus) : 1;
}

/** Whether a tap of ours is as it must be; one with another number of queues has to be made again. */
export function isTapRight(found: Interface, queuePairs: number): boolean {
  const data = found.linkinfo?.info_data;
  return isTap(found) && data?.vnet_hdr === true && (data.multi_queue === true) === queuePairs > 1;
}

/** Lines that make a VM's own tap on its bridge, apart from its neighbours, from whatever a killed process left of it. */
export function tapLines(
  link: TapLink,
  instance: string,
  queuePairs: number,
  found: Interface | undefined,
): string[] {
  const tap = tapNameOf(instance);
  const isRight = found !== undefined && isTapRight(found, queuePairs);
  const uid = process.getuid?.() ?? 0;
  const user = uid === 0 ? "" : ` user ${uid}`;
  return [
    ...(found === undefined || isRight ? [] : [`link delete dev ${tap}`]),
    ...(isRight
      ? []
      : [`tuntap add dev ${tap} mode tap vnet_hdr${queuePairs > 1 ? " multi_queue" : ""}${user}`]),
    // No address of the host's own on it: what the guest sees of the host is the bridge.
    `link set dev ${tap} addrgenmode none alias "${aliasOf(instance, link)}"`,
    `link set dev ${tap} master ${link.bridge}`,
    `link set dev ${tap} type bridge_slave isolated on`,
    `link set dev ${tap} up`,
  ];
}

/**
 * Removes a tap, and then each bridge that we made and nothing else is on.
 *
 * @param seen What is there, where that is known.
 */
export async function removeLinks(tap: string, seen?: readonly Interface[]): Promise<void> {
  const all = seen ?? (await interfaces());
  const rest = all.filter(({ ifname }) => ifname !== tap);
  const empty = rest.filter(
    (found) => isOwnBridge(found) && !rest.some(({ master }) => master === found.ifname),
  );
  const gone = [...all.filter(({ ifname }) => ifname === tap), ...empty];
  await makeLinks(gone.map(({ ifname }) => `link delete dev ${ifname}`));
}

/** Runs lines of ip(8), in order, up to the first that fails. */
export async function makeLinks(lines: readonly string[]): Promise<void> {
  if (lines.length > 0) await run("ip", ["-batch", "-"], `${lines.join("\n")}\n`);
}

/**
 * Lets packets from 127.0.0.1 leave by a bridge (`route_localnet`, Documentation/networking/ip-sysctl.rst), as a forward of that
 * address needs. On our own bridge alone: our rules keep its guests from the host's loopback addresses.
 *
 * @returns Whether they may leave.
 * @throws MicroVmError `host-unusable`, input `portForwards`: /proc/sys is read-only, as in a unit of systemd with ProtectKernelTunables.
 */
export async function routeLoopback(bridge: string, isOwn: boolean): Promise<boolean> {
  const path = `/proc/sys/net/ipv4/conf/${bridge}/route_localnet`;
  if ((await readFile(path, "utf8")).trim() === "1") return true;
  if (!isOwn) return false;
  try {
    await writeFile(path, "1");
    return true;
  } catch (error) {
    const code = systemCodeOf(error);
    if (code !== "EROFS" && code !== "EACCES" && code !== "EPERM") throw error;
    const text = `expected to write 1 to ${path}, by which a port of 127.0.0.1 leads to a guest, got: ${messageOf(error)}; make /proc/sys writable for this process (systemd: ProtectKernelTunables=no), or forward from another address`;
    throw new MicroVmError("host-unusable", text, { input: "portForwards", cause: error });
  }
}

/** Whether this host passes packets on between interfaces (net.ipv4.ip_forward). */
export async function isForwarding(): Promise<boolean> {
  try {
    return (await readFile("/proc/sys/net/ipv4/ip_forward", "utf8")).trim() === "1";
  } catch (error) {
    if (isAbsent(error)) return false; // a /proc that is not all there
    throw error;
  }
}
