import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { commandLine } from "../../../provider/boot/cmdline.js";
import { guestLink, linkOf, seenFromGuest, seenFromHost } from "../../../provider/boot/network.js";
import {
  hostPlaceOf,
  isGuestAddress,
  subnetOf,
  tapLink,
  tapNetworkOf,
} from "../../../provider/boot/tap-link.js";
import { nfsSpec } from "./sample-spec.js";

const backend = { type: "cloud-hypervisor" } as const;
const spec = nfsSpec({ backend });

describe("the link of a guest on a tap", () => {
  it("follows from the VM's name: the same in preview and up, another for another name", () => {
    expect(guestLink(spec)).toEqual({
      kind: "tap",
      bridge: "microvm0",
      mac: expect.stringMatching(/^02(:[0-9a-f]{2}){5}$/),
      guestAddress: expect.stringMatching(/^10\.20\.\d+\.\d+$/),
      gatewayAddress: "10.20.1.1",
      prefixLength: 16,
      nameServers: [],
    });
    expect(guestLink(spec)).toEqual(guestLink({ ...spec }));
    expect(guestLink({ ...spec, vmName: "other" })).not.toEqual(guestLink(spec));
    // Held for good: another address would replace every VM there is.
    expect(tapLink({ ...spec, vmName: "web" })).toMatchObject({
      guestAddress: "10.20.58.21",
      mac: "02:03:9b:3d:1e:13",
    });
  });

  it("has the address that ip gives, and the bridge, tap and network of the person's", () => {
    const network = { bridge: "br0", tap: "tap7", subnet: "192.168.9.0/28" };
    expect(guestLink({ ...spec, ip: "192.168.9.5", network })).toMatchObject({
      bridge: "br0",
      tap: "tap7",
      guestAddress: "192.168.9.5",
      gatewayAddress: "192.168.9.1",
      prefixLength: 28,
    });
  });

  it("is in the command line static, with the prefix length where the seed's guest wants one", () => {
    const link = guestLink({ ...spec, vmName: "web", ip: "10.20.0.9" });
    const line = commandLine({
      spec: { ...spec, vmName: "web" },
      link,
      nfsServerAddress: "10.20.1.1",
      ownInitramfs: false,
    });
    expect(line).toContain(" ip=10.20.0.9::10.20.1.1:255.255.0.0:web:eth0:off ");
    expect(line).toContain(' gateway_ip="10.20.1.1/16" guest_ip="10.20.0.9/16" vm_name="web"');
  });

  it("shows a server on this host at the bridge's address, to the guest and to this host alike", () => {
    const link = guestLink(spec);
    for (const address of ["127.0.0.1", "127.0.1.1", "0.0.0.0", "10.20.1.1"]) {
      expect(seenFromGuest(address, link)).toBe("10.20.1.1");
      expect(seenFromHost(address, link)).toBe("10.20.1.1");
    }
    expect(seenFromGuest("192.168.1.5", link)).toBe("192.168.1.5");
    expect(seenFromHost("192.168.1.5", link)).toBe("192.168.1.5");
  });

  it("is that of the inputs as the engine has them, once they are known", () => {
    expect(linkOf({ ...spec })).toEqual(guestLink(spec));
    expect(linkOf({ vmName: "web", ip: "static" })).toMatchObject({ kind: "user" });
    expect(linkOf({ ...spec, backend: "04da6b54-80e4-46f7-96ec-b56ff0331ba9" })).toBeUndefined();
    expect(linkOf({ ...spec, network: "04da6b54-80e4-46f7-96ec-b56ff0331ba9" })).toBeUndefined();
    expect(linkOf({ ...spec, network: { subnet: "nonsense" } })).toBeUndefined();
  });

  it("is within its network for any name and network, never the host's own, the first or the last address", () => {
    const bits = fc.integer({ min: 8, max: 30 });
    const address = fc.tuple(fc.integer({ min: 1, max: 223 }), fc.nat(255), fc.nat(255), fc.nat(255));
    fc.assert(
      fc.property(fc.string(), address, bits, (vmName, parts, prefix) => {
        const subnet = `${parts.join(".")}/${prefix}`;
        const place = hostPlaceOf(subnet);
        fc.pre(place !== undefined);
        const link = tapLink({ vmName, ip: "static", network: { subnet }, guestAccess: "internet" });
        expect(isGuestAddress(link.guestAddress, place)).toBe(true);
        expect(subnetOf({ ...place, hostAddress: link.guestAddress })).toBe(subnetOf(place));
      }),
    );
  });

  it("leaves a dozen VMs of the default network their own addresses, and is even over it", () => {
    const addresses = Array.from(
      { length: 5000 },
      (_, index) => tapLink({ ...spec, vmName: `vm-${index}` }).guestAddress,
    );
    const hundreds = new Set(addresses.map((address) => address.split(".")[2]));
    expect(hundreds.size).toBe(256);
    expect(new Set(addresses).size).toBeGreaterThan(4700);
  });
});

describe("a network in CIDR form", () => {
  it.each([
    ["10.20.1.0/24", "10.20.1.1"],
    ["10.20.1.1/24", "10.20.1.1"],
    ["10.20.1.9/24", "10.20.1.9"],
    ["10.20.1.0/16", "10.20.1.0"],
    ["192.168.0.4/30", "192.168.0.5"],
  ])("%s has the host at %s", (subnet, host) => {
    expect(hostPlaceOf(subnet)?.hostAddress).toBe(host);
  });

  it.each([
    "",
    "10.20.1.0",
    "10.20.1.0/",
    "10.20.1.0/31",
    "10.20.1.0/7",
    "10.20.1.255/24",
    "1.2.3.4/24/1",
    "1.2.3/24",
    "1.2.3.4/2x",
  ])("%s is none", (subnet) => {
    expect(hostPlaceOf(subnet)).toBeUndefined();
    expect(tapNetworkOf({ subnet })).toBeUndefined();
  });
});
