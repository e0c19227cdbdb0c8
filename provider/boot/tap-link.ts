/** The link of a guest on a tap: its addresses follow from the network's configuration and the VM's name. Pure. */

import { createHash } from "node:crypto";
import { isIPv4 } from "node:net";
import type { Spec } from "../spec/spec.js";
import type { TapLink } from "./boot.js";

/**
 * The network of taps where the person names none: the seed's bridge address, in a network so large that the addresses of
 * some dozen VMs, which follow from their names, hardly ever meet (in a /24, two of 16 would in every third case).
 */
export const tapNetwork = { bridge: "microvm0", subnet: "10.20.1.1/16" } as const;

/** The host's place on an IPv4 network. */
export interface HostPlace {
  /** IPv4 address of the host. */
  readonly hostAddress: string;
  /** 8 to 30. */
  readonly prefixLength: number;
}

/** A network as the back end uses it. */
export interface TapNetwork extends HostPlace {
  readonly bridge: string;
  readonly tap?: string;
}

type NetworkInput = NonNullable<Spec["network"]>;

/**
 * An IPv4 network in CIDR form. Where the host part is all zeros, the host has the network's first address; else the one that
 * stands there: `10.20.1.0/24` and `10.20.1.1/24` mean the same.
 *
 * @returns undefined for what is no network with room for a host and a guest.
 */
export function hostPlaceOf(subnet: string): HostPlace | undefined {
  const [address = "", prefix = "", ...rest] = subnet.split("/");
  const prefixLength = Number(prefix);
  if (!isIPv4(address) || rest.length > 0 || !/^[0-9]{1,2}$/.test(prefix)) return undefined;
  if (prefixLength < 8 || prefixLength > 30) return undefined;
  const { first, last, network } = rangeOf(address, prefixLength);
  const given = numberOf(address);
  const host = given === network ? first : given;
  return host > last ? undefined : { hostAddress: addressOf(host), prefixLength };
}

/** The network that an input means; undefined when its `subnet` is none. */
export function tapNetworkOf(input: NetworkInput = {}): TapNetwork | undefined {
  const { tap, subnet = tapNetwork.subnet } = input;
  const place = hostPlaceOf(subnet);
  if (place === undefined) return undefined;
  // A tap of the person's that is on no bridge has the host's address itself.
  const bridge = input.bridge ?? tap ?? tapNetwork.bridge;
  return { bridge, ...(tap === undefined ? {} : { tap }), ...place };
}

/** Whether a guest can have an address on a network: not the network's own, the broadcast, or the host's. */
export function isGuestAddress(address: string, { hostAddress, prefixLength }: HostPlace): boolean {
  const { first, last } = rangeOf(hostAddress, prefixLength);
  const number = numberOf(address);
  return number >= first && number <= last && address !== hostAddress;
}

/** The first and the last address that a host can have on a network, in words: `10.20.0.1 to 10.20.255.254`. */
export function rangeInWords({ hostAddress, prefixLength }: HostPlace): string {
  const { first, last } = rangeOf(hostAddress, prefixLength);
  return `${addressOf(first)} to ${addressOf(last)}`;
}

/** The network of an address in CIDR form: `10.20.0.0/16`. */
export function subnetOf({ hostAddress, prefixLength }: HostPlace): string {
  return `${addressOf(rangeOf(hostAddress, prefixLength).network)}/${prefixLength}`;
}

/**
 * The link of a VM on a tap. Address and MAC follow from the name, so that a preview shows what boots; an explicit `ip` wins.
 *
 * @throws Error when the network is none, which the rules of the spec have refused before.
 */
export function tapLink(
  spec: Pick<Spec, "vmName" | "ip" | "network" | "guestAccess"> & Partial<Pick<Spec, "backend">>,
): TapLink {
  const network = tapNetworkOf(spec.network);
  if (network === undefined) throw new Error(`not a network: ${String(spec.network?.subnet)}`);
  const { bridge, tap, hostAddress, prefixLength } = network;
  const hash = hashOf(spec.vmName);
  return {
    kind: "tap",
    bridge,
    ...(tap === undefined ? {} : { tap }),
    ...(isAttached(spec.backend) ? { asIs: true } : {}),
    mac: macOf(spec.vmName),
    guestAddress: isIPv4(spec.ip) ? spec.ip : computedAddress(hash, network),
    gatewayAddress: hostAddress,
    prefixLength,
    nameServers: [],
    ...(spec.guestAccess === "nfs-only" ? { nfsOnly: true } : {}),
  };
}

/** Into a VMM of somebody else's, whose network is theirs as well. */
function isAttached(backend: Spec["backend"] | undefined): boolean {
  return backend?.type === "cloud-hypervisor" && backend.apiSocket !== undefined;
}

/**
 * The hardware address of a VM's interface, by the VM's name. The first byte says unicast and locally administered (IEEE 802, section
 * 8.2.2: bit 0 clear, bit 1 set).
 */
export function macOf(vmName: string): string {
  const hash = hashOf(vmName);
  return ["02", ...[...hash.subarray(8, 13)].map((byte) => byte.toString(16).padStart(2, "0"))].join(":");
}

function hashOf(vmName: string): Buffer {
  return createHash("sha256").update(vmName).digest();
}

function computedAddress(hash: Buffer, { hostAddress, prefixLength }: HostPlace): string {
  const { first, last } = rangeOf(hostAddress, prefixLength);
  const host = numberOf(hostAddress);
  // One address of the range is the host's: those from there on move up by one.
  const candidate = first + (hash.readUInt32BE(0) % (last - first));
  return addressOf(candidate < host ? candidate : candidate + 1);
}

function rangeOf(address: string, prefixLength: number) {
  const size = 2 ** (32 - prefixLength);
  const network = Math.floor(numberOf(address) / size) * size;
  return { network, first: network + 1, last: network + size - 2 };
}

function numberOf(address: string): number {
  return address.split(".").reduce((number, part) => number * 256 + Number(part), 0);
}

function addressOf(number: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(number / 2 ** shift) % 256).join(".");
}
