/** Boot configuration -> the VmConfig of Cloud Hypervisor. Pure. */

import { type BootConfiguration, type Disk, type GuestLink, MEMORY_BLOCK_MIB } from "../../boot/boot.js";
import type { Attachment } from "../../host/network/index.js";
import type { Launch, VmSize } from "../local/vmm.js";
import type { VmConfigBody, VmResizeBody } from "./schemas.js";

const MIB = 1_048_576;

/** Name of the only network device. */
const NETWORK_ID = "net0";

/** Name of the disk at this position; the guest calls the first one /dev/vda. */
export function diskId(index: number): string {
  return `disk${index}`;
}

/**
 * What `vm.create` is given.
 *
 * @param landlock Whether the VMM is to shut itself out of every file but those that are named here.
 * @throws Error when there is no network: the caller attaches it first.
 */
export function vmConfig({ boot, paths, network }: Launch, landlock: boolean): VmConfigBody {
  if (network === undefined) throw new Error("Cloud Hypervisor needs a network");
  const isShared = "vhostSocket" in network;
  const { vcpus, memoryMiB, maxVcpus = vcpus, cmdline } = boot;
  return {
    payload: {
      kernel: paths.kernel,
      ...(paths.initramfs === undefined ? {} : { initramfs: paths.initramfs }),
      cmdline,
    },
    cpus: { boot_vcpus: vcpus, max_vcpus: maxVcpus },
    memory: { size: memoryMiB * MIB, ...roomOf(boot), ...(isShared ? { shared: true } : {}) },
    ...(boot.disks.length === 0 ? {} : { disks: boot.disks.map(diskConfig) }),
    net: [{ id: NETWORK_ID, ...netConfig(boot.link, network) }],
    rng: { src: "/dev/urandom" },
    serial: { mode: "File", file: paths.consoleLog },
    console: { mode: "Off" },
    vsock: { cid: network.vsockCid, socket: paths.vsock },
    landlock_enable: landlock,
    ...(landlock ? { landlock_rules: [{ path: paths.snapshots, access: "rw" as const }] } : {}),
  };
}

function netConfig(link: GuestLink, network: Attachment) {
  if ("vhostSocket" in network) {
    if (link.kind !== "user" || link.passt === undefined) throw new Error("the link is not passt's");
    const { vhostSocket: vhost_socket } = network;
    // One pair of queues: passt has no more.
    return { vhost_user: true as const, vhost_socket, mac: link.passt.mac, num_queues: 2 };
  }
  if (link.kind !== "tap") throw new Error("the link is not a tap's");
  return { tap: network.tap, mac: link.mac, num_queues: network.queuePairs * 2 };
}

/** What `vm.resize` is given. */
export function resizeOf({ vcpus, memoryMiB }: VmSize): VmResizeBody {
  return { desired_vcpus: vcpus, desired_ram: memoryMiB * MIB };
}

/** Room for the memory that may come: one block more, since the first begins where the boot memory's last block ends. */
function roomOf({ memoryMiB, maxMemoryMiB = memoryMiB }: BootConfiguration): { hotplug_size?: number } {
  const blocks = Math.floor((maxMemoryMiB - memoryMiB) / MEMORY_BLOCK_MIB);
  return blocks < 1 ? {} : { hotplug_size: (blocks + 1) * MEMORY_BLOCK_MIB * MIB };
}

function diskConfig({ path, readonly, numQueues }: Disk, index: number) {
  return {
    id: diskId(index),
    path,
    ...(readonly === true ? { readonly } : {}),
    num_queues: numQueues,
    image_type: "Raw" as const,
  };
}
