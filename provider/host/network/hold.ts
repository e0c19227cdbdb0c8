/**
 * A bridge that is there while no VM is on it, so that a server can listen at its address before the first one comes: a tap that nobody
 * opens stands on it, and by that it counts as used.
 */

import { checkedInstance } from "../paths.js";
import { assertMayAdminister, isInstalled, mayAdminister } from "./command.js";
import {
  assertFits,
  bridgeLines,
  find,
  interfaceNames,
  interfaces,
  isOwnBridge,
  makeLinks,
  removeLinks,
} from "./links.js";
import { withNetworkLock } from "./lock.js";
import { removeRules, setServerRules } from "./ruleset.js";

/** A bridge, and this host's place on it. */
export interface BridgeToHold {
  readonly bridge: string;
  readonly hostAddress: string;
  readonly prefixLength: number;
}

/** `mvx` and 12 hex digits, as the taps of VMs are `mvm` and 12 (an interface name has at most 15 characters, IFNAMSIZ). */
function holderOf(instance: string): string {
  return `mvx${checkedInstance(instance).slice(0, 12)}`;
}

/**
 * Makes the bridge where it is not there, and keeps it until {@link releaseBridge}. One of the person's is left as it is. May be called
 * again.
 *
 * @param instance 16 hex digits, of whoever holds it.
 * @throws MicroVmError `host-unusable` without the right (CAP_NET_ADMIN), or where a bridge of the person's has another address.
 */
export async function holdBridge(
  instance: string,
  { bridge, hostAddress, prefixLength }: BridgeToHold,
): Promise<void> {
  const link = {
    kind: "tap",
    bridge,
    gatewayAddress: hostAddress,
    prefixLength,
    guestAddress: hostAddress,
    mac: "",
    nameServers: [],
  } as const;
  const holder = holderOf(instance);
  await withNetworkLock(async () => {
    const all = await interfaces();
    assertFits(link, all);
    const found = find(all, bridge);
    if (found !== undefined && !isOwnBridge(found)) return;
    assertMayAdminister();
    const isHeld = find(all, holder) !== undefined;
    await makeLinks([
      ...bridgeLines(link, found),
      ...(isHeld ? [] : [`tuntap add dev ${holder} mode tap`]),
      `link set dev ${holder} addrgenmode none alias "pulumi-microvm export ${instance}"`,
      `link set dev ${holder} master ${bridge}`,
      `link set dev ${holder} type bridge_slave isolated on`,
    ]);
  });
}

/**
 * Keeps others than this host and the bridge's guests from a server at the bridge's address, until {@link releaseBridge}. May be called
 * again.
 *
 * @returns Whether they are kept out: that takes nftables and CAP_NET_ADMIN.
 */
export async function guardServer(
  instance: string,
  { bridge, hostAddress }: BridgeToHold,
  ports: readonly number[],
): Promise<boolean> {
  if (!mayAdminister() || !isInstalled("nft")) return false;
  await withNetworkLock(async () => await setServerRules(instance, { bridge, hostAddress, ports }));
  return true;
}

/**
 * Gives the bridge up, with the rules of {@link guardServer}; it goes if we made it and nothing else is on it. Idempotent.
 *
 * @throws MicroVmError `host-unusable` without the right (CAP_NET_ADMIN), where something was made.
 */
export async function releaseBridge(instance: string): Promise<void> {
  const holder = holderOf(instance);
  if (!mayAdminister() && !interfaceNames().includes(holder)) return;
  assertMayAdminister();
  await withNetworkLock(async () => {
    if (isInstalled("nft")) await removeRules(instance);
    await removeLinks(holder);
  });
}
