/** From what is known of a VM to what the API says of it. */

import { type Root, tapNameOf } from "../boot/boot.js";
import type { VmOutputs } from "../backends/backend.js";
import type { VmRecord } from "../host/record.js";
import type { ServerConfig } from "./server-config.js";
import type { Vm } from "./wire.js";

/** What a port of the guest is for. */
export type PortDescriptions = ReadonlyMap<number, string>;

/** As config.yaml tells it, and of the command server. */
export function descriptionsOf({
  guestPorts,
  commandServerPort,
}: Pick<ServerConfig, "guestPorts" | "commandServerPort">): PortDescriptions {
  const descriptions = new Map([[commandServerPort, "cmdserver"]]);
  for (const { guestPort, description } of guestPorts) {
    if (description !== undefined) descriptions.set(guestPort, description);
  }
  return descriptions;
}

/** What is found of a VM. `creating`: a request for it is in hand. `unreachable`: its hypervisor does not answer, or its record cannot be read. */
export type ServedState = VmOutputs["state"] | "creating" | "removing" | "unreachable";

/** One VM as the API shows it. */
export function vmOf(
  record: VmRecord,
  state: ServedState,
  rootEvidence: VmOutputs["rootEvidence"],
  descriptions: PortDescriptions,
): Vm {
  const { vmName, instance, boot } = record;
  const { link, portForwards, cmdline } = boot;
  return {
    vmName,
    status: state.toUpperCase(),
    ip: link.prefixLength === undefined ? link.guestAddress : `${link.guestAddress}/${link.prefixLength}`,
    ...(link.kind === "tap" ? { tapDeviceName: link.tap ?? tapNameOf(instance) } : {}),
    portForwards: portForwards.map(({ hostPort, guestPort }) => {
      const description = descriptions.get(guestPort);
      return {
        hostPort: String(hostPort),
        guestPort: String(guestPort),
        ...(description === undefined ? {} : { description }),
      };
    }),
    instance,
    rootEvidence,
    cmdline,
    root: rootOf(boot.root),
  };
}

function rootOf(root: Root): string {
  return root.type === "nfs" ? `nfs ${root.server}:${root.port}:${root.path}` : `disk ${root.rootfs}`;
}
