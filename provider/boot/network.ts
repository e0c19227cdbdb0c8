/** The guest's link, and what an NFS server's address looks like from its other end. */

import { isIPv4 } from "node:net";
import type { Spec } from "../spec/spec.js";
import type { GuestLink, PortForward, UserLink } from "./boot.js";
import { hostPlaceOf, macOf, tapLink } from "./tap-link.js";

/** The fixed addresses of QEMU's user network (QEMU manual, "Using the user mode network stack"). */
export const userNetwork = {
  network: "10.0.2.0",
  prefixLength: 24,
  gateway: "10.0.2.2",
  nameServer: "10.0.2.3",
  /** Ours: where a guest that reaches nothing else meets its NFS server. QEMU forwards nothing at the gateway's own address. */
  onlyServer: "10.0.2.100",
  firstGuest: "10.0.2.15",
} as const;

/** What decides a link. */
export type LinkSpec = Pick<Spec, "vmName" | "ip" | "backend" | "network" | "guestAccess">;

/** The link that the back end will give the guest. */
export function guestLink(spec: LinkSpec): GuestLink {
  switch (spec.backend.type) {
    case "qemu":
      return userLink(spec);
    case "cloud-hypervisor":
      return spec.network?.passt === true
        ? { ...userLink(spec), passt: { mac: macOf(spec.vmName) } }
        : tapLink(spec);
    default:
      return spec.backend satisfies never;
  }
}

function userLink(spec: LinkSpec): UserLink {
  const nfsOnly = spec.guestAccess === "nfs-only";
  return {
    kind: "user",
    guestAddress: isIPv4(spec.ip) ? spec.ip : userNetwork.firstGuest,
    gatewayAddress: userNetwork.gateway,
    prefixLength: userNetwork.prefixLength,
    ...(nfsOnly ? { nameServers: [], nfsOnly } : { nameServers: [userNetwork.nameServer] }),
  };
}

/**
 * The link of inputs or outputs as the engine hands them over, an absent `backend` being `qemu`.
 *
 * @returns undefined while what decides the host's address on it is not known, or is wrong.
 */
export function linkOf(values: Readonly<Record<string, unknown>>): GuestLink | undefined {
  const { vmName, ip, backend, network, guestAccess } = values;
  const type = backend === undefined || backend === null ? "qemu" : fieldOf(backend, "type");
  if (type !== "qemu" && type !== "cloud-hypervisor") return undefined;
  if (typeof network === "string") return undefined; // unknown in a preview
  const subnet = fieldOf(network, "subnet");
  if (subnet !== undefined && (typeof subnet !== "string" || hostPlaceOf(subnet) === undefined))
    return undefined;
  return guestLink({
    vmName: String(vmName),
    ip: String(ip),
    backend: { type, apiSocket: fieldOf(backend, "apiSocket") },
    network,
    guestAccess,
  } as LinkSpec);
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null
    ? (value as Readonly<Record<string, unknown>>)[name]
    : undefined;
}

/** Whether an address means this host itself: a loopback (127.0.0.0/8) or the wildcard address. */
export function isThisHost(address: string): boolean {
  return address.startsWith("127.") || address === "0.0.0.0";
}

/**
 * The address under which the guest reaches a server that this host reaches at `address`: a loopback or
 * wildcard address would be the guest's own, so it becomes the host's address on the link. On a user network that leads to
 * the server alone, every server is at one address.
 */
export function seenFromGuest(address: string, link: GuestLink): string {
  if (link.kind === "user" && link.nfsOnly === true) return userNetwork.onlyServer;
  return isThisHost(address) ? link.gatewayAddress : address;
}

/**
 * The address under which this host meets the server that the guest will meet. Behind the host's address on a user network is
 * 127.0.0.1, whichever loopback address was named; on a bridge it is the bridge's own address, where a server bound to 127.0.0.1
 * does not answer.
 */
export function seenFromHost(address: string, link: GuestLink): string {
  switch (link.kind) {
    case "user":
      return isBehind(address, link) ? "127.0.0.1" : address;
    case "tap":
      return isThisHost(address) ? link.gatewayAddress : address;
    default:
      return link satisfies never;
  }
}

/** Whether the server that a guest is given at an address is this host. */
export function isBehind(address: string, link: Pick<GuestLink, "gatewayAddress">): boolean {
  return isThisHost(address) || address === link.gatewayAddress;
}

/** Whether two forwards listen on the same port of the host: the wildcard address takes it on every address. */
export function takeSamePort(one: PortForward, other: PortForward): boolean {
  return (
    one.hostPort === other.hostPort &&
    one.protocol === other.protocol &&
    (one.hostAddress === other.hostAddress ||
      one.hostAddress === "0.0.0.0" ||
      other.hostAddress === "0.0.0.0")
  );
}

/** Dotted netmask of a prefix length: 24 is `255.255.255.0`. */
export function netmask(prefixLength: number): string {
  const bits = prefixLength === 0 ? 0 : (0xffffffff << (32 - prefixLength)) >>> 0;
  return [24, 16, 8, 0].map((shift) => (bits >>> shift) & 0xff).join(".");
}
