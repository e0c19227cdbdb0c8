/** Rules over the inputs that decide the network of a guest on QEMU's user network (the qemu back end). */

import { isIPv4 } from "node:net";
import { userNetwork } from "../boot/network.js";
import { shown } from "../errors.js";
import { accessFailures } from "./network-rules.js";
import type { InputValues } from "./schema.js";
import type { Failure } from "./validate.js";

/** What of the user network cannot be as it is given. Values that are not known yet are absent. */
export function userNetworkFailures(values: InputValues): Failure[] {
  return [...addressFailures(values), ...accessFailures(values), ...datagramFailures(values)];
}

/** What of a guest's address on a user network cannot be: QEMU's, or passt's which has the same. */
export function addressFailures({ ip, guestAccess }: InputValues): Failure[] {
  if (ip === undefined || !isIPv4(ip)) return [];
  if (!isOnUserNetwork(ip)) {
    return [
      {
        input: "ip",
        text: `expected an address from 10.0.2.4 to 10.0.2.254, as the user network has them, got ${shown(ip)}`,
      },
    ];
  }
  if (guestAccess !== "nfs-only" || ip !== userNetwork.onlyServer) return [];
  return [
    {
      input: "ip",
      text: `expected another address beside guestAccess: "nfs-only", which shows the guest its NFS server at this one, got ${shown(ip)}`,
    },
  ];
}

function isOnUserNetwork(address: string): boolean {
  const [head, last] = [address.slice(0, address.lastIndexOf(".")), Number(address.split(".")[3])];
  return head === userNetwork.network.slice(0, -2) && last >= 4 && last <= 254;
}

/** A guest that is restricted loses every datagram that it sends, answers included (libslirp, udp_input). */
function datagramFailures({ guestAccess, portForwards }: InputValues): Failure[] {
  if (guestAccess !== "nfs-only") return [];
  return (portForwards ?? []).flatMap(({ protocol }, index) =>
    protocol === "udp"
      ? [
          {
            input: `portForwards.${index}.protocol`,
            code: "not-supported" as const,
            text: 'expected "tcp" beside guestAccess: "nfs-only", with which QEMU drops every datagram that the guest sends, got "udp"',
          },
        ]
      : [],
  );
}
