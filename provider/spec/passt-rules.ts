/** Rules over the inputs of a guest of Cloud Hypervisor on the user network of passt. */

import type { InputValues } from "./schema.js";
import { addressFailures } from "./user-network-rules.js";
import type { Failure } from "./validate.js";

/** Whether a guest of Cloud Hypervisor is on passt's user network. */
export function isOnPasst({ network }: Pick<InputValues, "network">): boolean {
  return network?.passt === true;
}

/** What of it cannot be as it is given. Values that are not known yet are absent. */
export function passtFailures(values: InputValues): Failure[] {
  const { backend, network, guestAccess, snapshotId } = values;
  const besides = (["bridge", "tap", "subnet"] as const).filter((name) => network?.[name] !== undefined);
  const isAttached = backend?.type === "cloud-hypervisor" && backend.apiSocket !== undefined;
  const rows: readonly (readonly [input: string, given: boolean, reason: string])[] = [
    ...besides.map((name) => [`network.${name}`, true, "passt needs neither bridge nor tap"] as const),
    ["guestAccess", guestAccess === "nfs-only", "passt keeps a guest from nothing that this host reaches"],
    ["snapshotId", snapshotId !== undefined, "a guest on passt is not restored from a snapshot"],
    ["network.passt", isAttached, "the network of a VMM at backend.apiSocket is its owner's"],
  ];
  return [
    ...addressFailures(values),
    ...rows.flatMap(([input, given, reason]) =>
      given
        ? [{ input, code: "not-supported" as const, text: `not supported: ${reason}; leave it out` }]
        : [],
    ),
  ];
}
