import { describe, expect, it } from "vitest";

import { bootConfiguration } from "../../../../provider/boot/boot.js";
import { passtArguments } from "../../../../provider/host/network/passt.js";
import { plan } from "../../../../provider/plan/plan.js";
import { nfsSpec } from "../../boot/sample-spec.js";

const backend = { type: "cloud-hypervisor" } as const;
const network = { passt: true };

describe("a guest on passt", () => {
  const facts = { kernel: { path: "/k", sha256: "" }, nfsServerAddress: "127.0.0.1", statefulDisk: "/s" };
  const { link, root, cmdline } = bootConfiguration(nfsSpec({ backend, network }), facts);

  it("has the addresses of a user network, and meets this host's loopback at its gateway's", () => {
    expect(link).toMatchObject({ kind: "user", guestAddress: "10.0.2.15", gatewayAddress: "10.0.2.2" });
    expect(root).toMatchObject({ server: "10.0.2.2", hostServer: "127.0.0.1" });
    expect(cmdline).toContain(" ip=10.0.2.15::10.0.2.2:255.255.255.0:my-vm:eth0:off:10.0.2.3 ");
  });

  it("is given a passt whose command line says all of it", () => {
    if (link.kind !== "user") throw new Error("it is on a tap");
    const words = passtArguments("/run/i.net", link, [
      { hostPort: 8080, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" },
      { hostPort: 53, guestPort: 5353, protocol: "udp", hostAddress: "0.0.0.0" },
    ]);
    expect(words.join(" ").replace(/--runas \d+:\d+/, "--runas UID:GID")).toBe(
      "--vhost-user --foreground --one-off --ipv4-only --runas UID:GID --socket /run/i.net --address 10.0.2.15 --netmask 24 " +
        "--gateway 10.0.2.2 --map-host-loopback 10.0.2.2 --dns-forward 10.0.2.3 --tcp-ports 127.0.0.1/8080:80 --udp-ports 0.0.0.0/53:5353",
    );
  });

  it("is replaced for other forwards, which passt takes at its start", () => {
    const olds = { backend, network, portForwards: [], observed: "running", powerState: "running" };
    const portForwards = [{ hostPort: 8080, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }];
    expect(plan(olds, { ...olds, portForwards }).action).toBe("replace");
    const onTap = { ...olds, network: undefined };
    expect(plan(onTap, { ...onTap, portForwards }).action).toBe("update");
  });
});
