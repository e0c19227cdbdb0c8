/**
 * The network of a tap: bridge, tap, rules and leases of one VM, from before its VMM starts until after it has ended.
 *
 * Everything here may be called again, and killed at any instant: attach goes on from whatever is there, detach removes
 * whatever is there. What is ours is marked in the kernel itself (an interface's alias, a rule's comment) with the instance.
 */

import type { BootConfiguration } from "../../boot/boot.js";
import { MicroVmError } from "../../errors.js";
import type { LeaseHolder } from "../lease.js";

/** A VM as its network sees it. */
export interface NetworkedVm extends LeaseHolder {
  readonly boot: Pick<BootConfiguration, "link" | "portForwards" | "root" | "vcpus">;
}

/** What the VMM is given of its VM's network. */
export interface Attachment {
  /** Name of the tap: there, up, and with `vnet_hdr`. */
  readonly tap: string;
  /**
   * Pairs of queues that the VMM must open it with: the tap is `multi_queue` exactly where it is over 1, as Cloud Hypervisor
   * demands (so `num_queues` of its net device is twice this).
   */
  readonly queuePairs: number;
  /** Context id of the guest's vsock, 3 to 2^32-2, which no other VM of this user has. */
  readonly vsockCid: number;
}

/**
 * Leases the guest's address and a CID, then makes bridge, tap and rules; to be called before every start of the VMM, and after
 * {@link detachNetwork} or a reboot again. Of a VM without a tap it makes nothing.
 *
 * Called again, it brings what is there to what the VM is to have, port forwards included. When it throws, what was made is
 * left to {@link detachNetwork}.
 *
 * @returns undefined for a VM without a tap.
 * @throws MicroVmError `host-unusable` without `ip` or `nft`, without the right (CAP_NET_ADMIN), or where a bridge or tap of
 * the person's is not as the spec says; `address-taken` (input `ip`) when another VM has the address.
 */
export async function attachNetwork(
  vm: NetworkedVm,
  _env: NodeJS.ProcessEnv = process.env,
): Promise<Attachment | undefined> {
  if (vm.boot.link.kind !== "tap") return undefined;
  throw new MicroVmError("not-supported", "networks of taps are not finished yet", { input: "network" });
}

/**
 * Removes what is the instance's: rules, tap, leases of address and CID; with the last VM also our table and, if we made it, the
 * bridge. To be called when the VMM has ended. Idempotent; for an instance without a tap, or that never was, it does nothing.
 *
 * @throws MicroVmError `host-unusable` when something of it is there and cannot be removed.
 */
export async function detachNetwork(
  _instance: string,
  _env: NodeJS.ProcessEnv = process.env,
): Promise<void> {}

/**
 * Brings the port forwards of an attached VM to `vm.boot.portForwards`, in one step: all or, when it throws, none. The leases of the
 * ports are the caller's. Of a VM without a tap it does nothing.
 *
 * @throws MicroVmError `host-unusable`
 */
export async function changeForwards(
  _vm: NetworkedVm,
  _env: NodeJS.ProcessEnv = process.env,
): Promise<void> {}
