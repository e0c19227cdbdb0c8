/** The guest's block devices, in its order. Pure. */

import type { Spec } from "../spec/spec.js";
import type { Disk } from "./boot.js";

/**
 * The seed's two lists: with an NFS root only the stateful disk, with a disk root the image read-only and then
 * the stateful disk. One queue per vCPU.
 *
 * @param statefulPath Absolute path of the stateful disk's image.
 */
export function guestDisks(spec: Spec, statefulPath: string): Disk[] {
  const numQueues = spec.vcpus;
  const stateful = spec.statefulDiskMiB === 0 ? [] : [{ path: statefulPath, numQueues }];
  if (spec.useNfsRoot) return stateful;
  return [{ path: spec.rootfs, readonly: true, numQueues }, ...stateful];
}
