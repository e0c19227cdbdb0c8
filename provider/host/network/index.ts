/**
 * The network of a tap: bridge, tap, rules and leases of one VM, from before its VMM starts until after it has ended.
 *
 * Everything here may be called again, and killed at any instant: attach goes on from whatever is there, detach removes
 * whatever is there. What is ours is marked in the kernel itself (an interface's alias, a rule's comment) with the instance.
 */

import { createHash } from "node:crypto";

import {
  type BootConfiguration,
  type GuestLink,
  tapNameOf,
  type TapLink,
  type UserLink,
} from "../../boot/boot.js";
import { MicroVmError } from "../../errors.js";
import { allOf } from "../all-of.js";
import { controlSocketPath, socketPaths } from "../runtime-directory.js";
import { type LeaseHolder, releaseUnique, takeUnique, uniqueValues } from "../lease.js";
import { assertMayAdminister, isInstalled } from "./command.js";
import {
  assertFits,
  bridgeLines,
  find,
  type Interface,
  interfaceNames,
  interfaces,
  isOwnBridge,
  makeLinks,
  queuePairsOf,
  removeLinks,
  routeLoopback,
  straysOf,
  tapLines,
  withInterfaces,
} from "./links.js";
import { endPasst, startPasst } from "./passt.js";
import { removeRules, setRules } from "./ruleset.js";

/** A VM as its network sees it. */
export interface NetworkedVm extends LeaseHolder {
  /** Present and true where the instance is attached for the first time and has no CID, so that nothing of it can be there. */
  readonly isNew?: true;
  readonly boot: Pick<BootConfiguration, "link" | "portForwards" | "root" | "vcpus">;
}

/** What the VMM is given of its VM's network. */
export type Attachment = (TapAttachment | PasstAttachment) & {
  /** Context id of the guest's vsock, 3 to 2^32-2, which no other VM of this user has. */
  readonly vsockCid: number;
};

/** A user network by passt. */
export interface PasstAttachment {
  /** Absolute path of the unix socket at which it waits for the VMM. */
  readonly vhostSocket: string;
}

/** A tap of the host. */
export interface TapAttachment {
  /** Name of the tap: there, up, and with `vnet_hdr`. */
  readonly tap: string;
  /**
   * Pairs of queues that the VMM must open it with: the tap is `multi_queue` exactly where it is over 1, as Cloud Hypervisor
   * demands (so `num_queues` of its net device is twice this).
   */
  readonly queuePairs: number;
}

/**
 * Leases the guest's address and a CID, then makes bridge, tap and rules, or starts passt; to be called before every start of the VMM, and after
 * {@link detachNetwork} or a reboot again. Of a VM whose VMM makes the network itself it makes nothing.
 *
 * Called again, it brings what is there to what the VM is to have, port forwards included. When it throws, what was made is
 * left to {@link detachNetwork}.
 *
 * @returns undefined for a VM whose VMM makes the network itself.
 * @throws MicroVmError `host-unusable` without `ip` or `nft`, without the right (CAP_NET_ADMIN), or where a bridge or tap of
 * the person's is not as the spec says; `address-taken` (input `ip`) when another VM has the address.
 */
export async function attachNetwork(
  vm: NetworkedVm,
  env: NodeJS.ProcessEnv = process.env,
): Promise<Attachment | undefined> {
  const { link } = vm.boot;
  if (link.kind === "user") return link.passt === undefined ? undefined : await attachPasst(vm, link, env);
  if (link.asIs === true) return { vsockCid: await lease(vm, link, env), ...(await existingTap(vm, link)) };
  assertMayAdminister();
  // Leases are files: they are taken while the programs start, and nothing is made before.
  const leased = lease(vm, link, env);
  const [cid, made] = await Promise.allSettled([
    leased,
    withInterfaces(async (all) => {
      await leased;
      return await make(vm, link, all);
    }),
  ]);
  if (cid.status === "rejected") throw cid.reason;
  if (made.status === "rejected") throw made.reason;
  return { ...made.value, vsockCid: cid.value };
}

/** Another VM's passt may have the same addresses: each is a world of its own. */
async function attachPasst(vm: NetworkedVm, link: UserLink, env: NodeJS.ProcessEnv): Promise<Attachment> {
  await endPasst(vm.instance); // one whose VMM never came
  const { network: vhostSocket } = socketPaths(await controlSocketPath(vm.instance, env));
  const [vsockCid] = await allOf([leaseCid(vm, env), startPasst(vhostSocket, link, vm)]);
  return { vhostSocket, vsockCid };
}

/** All that is one VM's alone. @returns The CID. */
async function lease(vm: NetworkedVm, link: TapLink, env: NodeJS.ProcessEnv): Promise<number> {
  const taps = link.tap === undefined ? [] : [leaseTap(vm, link.tap, env)];
  const [cid] = await allOf([leaseCid(vm, env), leaseAddress(vm, link, env), ...taps]);
  return cid;
}

/**
 * Removes what is the instance's: rules, tap, leases of address and CID; with the last VM also our table and, if we made it, the
 * bridge. To be called when the VMM has ended. Idempotent; for an instance without a tap, or that never was, it does nothing.
 *
 * @param link The instance's, where it is known: of a network that is used as it is, the leases alone are removed.
 * @throws MicroVmError `host-unusable` when something of it is there and cannot be removed.
 */
export async function detachNetwork(
  instance: string,
  link?: GuestLink,
  env: NodeJS.ProcessEnv = process.env,
): Promise<void> {
  if (link?.kind === "user" && link.passt !== undefined) await endPasst(instance);
  if (link?.kind === "user" || link?.asIs === true) return await releaseUnique(instance, env);
  // The lease is taken before anything is made and given back after everything is removed.
  const isLeased = (await uniqueValues("guest-address", instance, env)).length > 0;
  if (!isLeased && !interfaceNames().includes(tapNameOf(instance))) return;
  assertMayAdminister();
  await withInterfaces(async (all) => await remove(instance, tapNameOf(instance), all));
  await releaseUnique(instance, env);
}

/**
 * Brings the port forwards of an attached VM to `vm.boot.portForwards`, in one step: all or, when it throws, none. The leases of the
 * ports are the caller's. Of a VM without a tap it does nothing.
 *
 * @throws MicroVmError `host-unusable`
 */
export async function changeForwards(vm: NetworkedVm): Promise<void> {
  const { link } = vm.boot;
  if (link.kind !== "tap" || link.asIs === true) return;
  assertMayAdminister();
  await withInterfaces(async (all) => await setRulesOf(vm, link, hasOwnBridge(link, all)));
}

/** What is left of a VM that nobody knows any more, at the address of this one. One that still runs keeps it. */
async function removeStrays(vm: NetworkedVm, link: TapLink, all: readonly Interface[]): Promise<void> {
  for (const { tap, instance, isOpen } of straysOf(link, vm.instance, all)) {
    if (isOpen) {
      throw new MicroVmError(
        "address-taken",
        `the address ${link.guestAddress} is that of a VM which still runs on the tap ${tap} (instance ${instance}) and whose record is gone; end its VMM, or give another address with ip`,
        { input: "ip" },
      );
    }
    // The bridge stays: it is about to be used.
    await removeRulesOf(instance);
    await makeLinks([`link delete dev ${tap}`]);
  }
}

async function remove(instance: string, tap: string, all: readonly Interface[]): Promise<void> {
  await allOf([removeRulesOf(instance), removeLinks(tap, all)]);
}

async function removeRulesOf(instance: string): Promise<void> {
  if (isInstalled("nft")) await removeRules(instance); // without it there are none
}

/** The person's own, used as it is. */
async function existingTap({ boot }: NetworkedVm, link: TapLink): Promise<TapAttachment> {
  const all = await interfaces();
  assertFits(link, all);
  const existing = link.tap === undefined ? undefined : find(all, link.tap);
  if (existing === undefined) throw new Error("a network that is used as it is has a tap");
  return { tap: existing.ifname, queuePairs: queuePairsOf(existing, boot.vcpus) };
}

function hasOwnBridge({ bridge }: TapLink, all: readonly Interface[]): boolean {
  const found = find(all, bridge);
  return found !== undefined && isOwnBridge(found);
}

/** Bridge, tap and rules, side by side: rules know interfaces by name, and nobody has the tap open yet. */
async function make(vm: NetworkedVm, link: TapLink, all: readonly Interface[]): Promise<TapAttachment> {
  const { vcpus } = vm.boot;
  assertFits(link, all);
  await removeStrays(vm, link, all);
  const existing = link.tap === undefined ? undefined : find(all, link.tap);
  if (existing !== undefined) {
    await setRulesOf(vm, link, hasOwnBridge(link, all));
    return { tap: existing.ifname, queuePairs: queuePairsOf(existing, vcpus) };
  }
  const tap = tapNameOf(vm.instance);
  const bridge = find(all, link.bridge);
  const lines = [...bridgeLines(link, bridge), ...tapLines(link, vm.instance, vcpus, find(all, tap))];
  // In the next turn: nft takes longer than ip, and to start a program keeps this process from starting the other.
  const links = Promise.resolve().then(async () => await makeLinks(lines));
  await allOf([setRulesOf(vm, link, bridge === undefined || isOwnBridge(bridge), links), links]);
  return { tap, queuePairs: vcpus };
}

/** @param links What makes the bridge, where it is being made. */
async function setRulesOf(
  vm: NetworkedVm,
  link: TapLink,
  isOwn: boolean,
  links?: Promise<void>,
): Promise<void> {
  const { instance, boot } = vm;
  const { portForwards, root } = boot;
  // Without nft and anything that needs it, the guest reaches this host and no further, as the preflight has said.
  if (portForwards.length === 0 && link.nfsOnly !== true && !isInstalled("nft")) return;
  const listens = new Set(portForwards.map(({ hostAddress }) => hostAddress));
  let fromLoopback = listens.has("127.0.0.1") || listens.has("0.0.0.0");
  if (fromLoopback) {
    await links;
    fromLoopback = await routeLoopback(link.bridge, isOwn);
    if (!fromLoopback && listens.has("127.0.0.1")) throw noLoopback(link.bridge);
  }
  const tap = link.tap ?? tapNameOf(instance);
  const isApart = isOwn && link.tap === undefined;
  await setRules({ instance, link, tap, isApart, portForwards, fromLoopback, root }, vm.isNew);
}

function noLoopback(bridge: string): MicroVmError {
  return new MicroVmError(
    "host-unusable",
    `a forward from 127.0.0.1 needs net.ipv4.conf.${bridge}.route_localnet=1, and that bridge is not ours to change. Set it, or give the forwards a hostAddress other than 127.0.0.1`,
    { input: "portForwards" },
  );
}

async function leaseAddress(vm: NetworkedVm, link: TapLink, env: NodeJS.ProcessEnv): Promise<void> {
  const other = await takeUnique({ kind: "guest-address", value: link.guestAddress }, vm, env);
  if (other === undefined) return;
  throw new MicroVmError(
    "address-taken",
    `the address ${link.guestAddress} is the VM ${other.vmName}'s (state directory ${other.stateDirectory}); give another address of the network with ip, or remove that VM`,
    { input: "ip" },
  );
}

async function leaseTap(vm: NetworkedVm, tap: string, env: NodeJS.ProcessEnv): Promise<void> {
  const other = await takeUnique({ kind: "tap", value: tap }, vm, env);
  if (other === undefined) return;
  throw new MicroVmError(
    "host-unusable",
    `the tap ${tap} is the VM ${other.vmName}'s (state directory ${other.stateDirectory}); give another, or leave it out to have one made`,
    { input: "network.tap" },
  );
}

/** CIDs below 3 and the highest one have a meaning of their own (linux/vm_sockets.h). */
const FIRST_CID = 3;
const LAST_CID = 2 ** 32 - 2;

/** A taken one of so many is chance; more of them in a row is not. */
const MOST_CIDS = 50;

/** The one that the VM has, as a restored guest needs it; else one that nobody has. */
async function leaseCid(vm: NetworkedVm, env: NodeJS.ProcessEnv): Promise<number> {
  const [held] = vm.isNew === true ? [] : await uniqueValues("vsock-cid", vm.instance, env);
  if (held !== undefined) return Number(held);
  const start = createHash("sha256").update(vm.instance).digest().readUInt32BE(0);
  for (let step = 0; step < MOST_CIDS; step++) {
    const cid = FIRST_CID + ((start + step) % (LAST_CID - FIRST_CID + 1));
    if ((await takeUnique({ kind: "vsock-cid", value: String(cid) }, vm, env)) === undefined) return cid;
  }
  throw new MicroVmError(
    "host-unusable",
    `${MOST_CIDS} vsock context ids in a row from ${start} on are taken by other VMs; remove some`,
  );
}
