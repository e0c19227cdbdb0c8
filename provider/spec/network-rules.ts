/** Rules over the inputs that decide the network of a guest on a tap (the cloud-hypervisor back end). */

import { isIPv4 } from "node:net";
import { isThisHost } from "../boot/network.js";
import { isGuestAddress, rangeInWords, tapNetworkOf, type TapNetwork } from "../boot/tap-link.js";
import { shown } from "../errors.js";
import type { InputValues } from "./schema.js";
import type { Failure } from "./validate.js";

/** What of the network of a tap cannot be as it is given. Values that are not known yet are absent. */
export function tapNetworkFailures(values: InputValues, unknown: ReadonlySet<string>): Failure[] {
  const network = unknown.has("network") ? undefined : tapNetworkOf(values.network);
  return [
    ...(network === undefined ? [] : addressFailures(values.ip, network)),
    ...accessFailures(values),
    ...forwardFailures(values),
  ];
}

function addressFailures(ip: string | undefined, network: TapNetwork): Failure[] {
  if (ip === "dhcp") {
    return [
      {
        input: "ip",
        code: "not-supported",
        text: 'not supported: on a tap the provider gives the guest its address, and knows it only so; use "static", or an address of the network',
      },
    ];
  }
  if (ip === undefined || !isIPv4(ip) || isGuestAddress(ip, network)) return [];
  return [
    {
      input: "ip",
      text: `expected an address from ${rangeInWords(network)} other than the host's, ${network.hostAddress}, got ${shown(ip)}`,
    },
  ];
}

/** The rules that let a guest reach its root alone name every port of it. */
export function accessFailures({ guestAccess, useNfsRoot, nfsMountPort }: InputValues): Failure[] {
  if (guestAccess !== "nfs-only" || useNfsRoot !== true || nfsMountPort !== "rpcbind") return [];
  return [
    {
      input: "nfsMountPort",
      text: 'expected the TCP port of mountd beside guestAccess: "nfs-only", which opens that port and no other, got "rpcbind" (the default beside nfsPort 2049); `rpcinfo -p` with the server names it',
    },
  ];
}

/** Port 0.0.0.0 aside, what listens is an address of this host; a loopback other than 127.0.0.1 has no route back. */
function forwardFailures({ portForwards }: InputValues): Failure[] {
  return (portForwards ?? []).flatMap(({ hostAddress }, index) =>
    isThisHost(hostAddress) && hostAddress !== "127.0.0.1" && hostAddress !== "0.0.0.0"
      ? [
          {
            input: `portForwards.${index}.hostAddress`,
            text: `expected 127.0.0.1, 0.0.0.0 or an address of an interface of this host, got ${shown(hostAddress)}`,
          },
        ]
      : [],
  );
}
