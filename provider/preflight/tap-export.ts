/** The NFS export of a guest on a tap, asked for where the guest will meet it. */

import type { TapLink } from "../boot/boot.js";
import { isInstalled } from "../host/network/command.js";
import { addressesOf } from "../host/network/links.js";
import { type ExportPlace, exportFinding, guestNetworkOf, type GuestOfExport } from "./export.js";
import type { Finding } from "./finding.js";
import { seenInterfaces } from "./tap-network.js";

/**
 * Probes an export from this host. A server on this host is asked at the bridge's address, which is the one that the guest gets:
 * one that is bound to 127.0.0.1 alone does not answer there, and that is said.
 *
 * Before the bridge is there, nobody can be asked at its address: what answers at 127.0.0.1 is looked at instead, and that this is not
 * the same is said.
 */
export async function tapExportFindings(
  place: ExportPlace,
  guest: GuestOfExport,
  link: TapLink,
): Promise<readonly Finding[]> {
  const guestNetwork = guestNetworkOf(place.hostServer, link);
  if (guestNetwork === "routed") return present(await exportFinding({ ...place, guestNetwork }, guest));
  const atLoopback: ExportPlace = { ...place, hostServer: "127.0.0.1", guestNetwork };
  const seen = isInstalled("ip") ? await seenInterfaces() : [];
  const isThere = seen.some((found) =>
    addressesOf(found).some((address) => address.startsWith(`${link.gatewayAddress}/`)),
  );
  if (!isThere) {
    const found = await exportFinding(atLoopback, guest);
    return found === undefined || found.code !== "nfs-unreachable"
      ? [...present(found), unasked(link)]
      : [found];
  }
  const finding = await exportFinding({ ...place, guestNetwork }, guest);
  if (finding === undefined || finding.kind !== "refused") return present(finding);
  const other = await exportFinding(atLoopback, guest);
  return other?.kind === "refused" ? [finding] : [loopbackOnly(place, link, finding)];
}

function present(finding: Finding | undefined): Finding[] {
  return finding === undefined ? [] : [finding];
}

function unasked({ bridge, gatewayAddress }: TapLink): Finding {
  return {
    input: "nfsServer",
    code: "nfs-unreachable",
    certain: false,
    text: `was asked at 127.0.0.1, and not at ${gatewayAddress} where the guest will meet it: the bridge ${bridge} is made with the first VM. A server that is bound to 127.0.0.1 alone will refuse the guest; bind it to 0.0.0.0`,
  };
}

function loopbackOnly(
  { port }: ExportPlace,
  { bridge, gatewayAddress }: TapLink,
  { input }: Finding,
): Finding {
  return {
    input,
    code: "nfs-unreachable",
    certain: true,
    text: `the server is bound to 127.0.0.1 alone: it answers at 127.0.0.1 and refuses at ${gatewayAddress} port ${port}, the address of ${bridge}, where the guest meets this host. Bind it to ${gatewayAddress} or 0.0.0.0 (AgentFS: --bind ${gatewayAddress})`,
  };
}
