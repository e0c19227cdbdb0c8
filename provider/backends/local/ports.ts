/** Port forwards of a VM: their leases, and bringing a running VM's to what is asked for. */

import type { GuestLink, PortForward } from "../../boot/boot.js";
import { type LeaseHolder, type PortLease, releaseLease, takeLease } from "../../host/lease.js";
import type { VmmControl } from "./vmm.js";

/** The port of this host that a forward needs. */
export function leaseOf(forward: PortForward): PortLease {
  return { protocol: forward.protocol, address: forward.hostAddress, port: forward.hostPort };
}

/**
 * Brings the forwards from `now` to `wanted`, one at a time. Each step may have been done before, by a call that was killed before it
 * could record it.
 *
 * @param control Of the running VM; absent when none runs.
 * @param onChange Told of the list after each step, so that what is recorded is what is there.
 * @throws MicroVmError `port-taken`, `vmm-failed`
 */
export async function changeForwards(
  change: {
    readonly now: readonly PortForward[];
    readonly wanted: readonly PortForward[];
    readonly link: GuestLink;
  },
  holder: LeaseHolder,
  control: VmmControl | undefined,
  onChange: (forwards: readonly PortForward[]) => Promise<void>,
): Promise<void> {
  let there = change.now;
  const added = change.wanted.filter((forward) => !change.now.some((other) => isSame(forward, other)));
  const dropped = change.now.filter((forward) => !change.wanted.some((other) => isSame(forward, other)));
  // A port that is taken is found out before anything changes; a port that only leads elsewhere is ours already.
  for (const forward of added) await takeLease(leaseOf(forward), holder);
  for (const forward of dropped) {
    await control?.removePortForward(forward);
    there = there.filter((other) => other !== forward);
    await onChange(there);
    if (!change.wanted.some((other) => isSamePort(forward, other))) {
      await releaseLease(leaseOf(forward), holder.instance);
    }
  }
  for (const forward of added) {
    await control?.removePortForward(forward);
    await control?.addPortForward(forward, change.link);
    there = [...there, forward];
    await onChange(there);
  }
}

function isSame(a: PortForward, b: PortForward): boolean {
  return isSamePort(a, b) && a.guestPort === b.guestPort;
}

function isSamePort(a: PortForward, b: PortForward): boolean {
  return a.hostPort === b.hostPort && a.protocol === b.protocol && a.hostAddress === b.hostAddress;
}
