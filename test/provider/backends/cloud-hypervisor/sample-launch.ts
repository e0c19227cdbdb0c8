/** What a Cloud Hypervisor is started with, for tests. */

import type { Launch } from "../../../../provider/backends/local/vmm.js";
import { bootConfiguration } from "../../../../provider/boot/boot.js";
import type { Spec } from "../../../../provider/spec/spec.js";
import { nfsSpec } from "../../boot/sample-spec.js";

export const backend = { type: "cloud-hypervisor" } as const;

export function sampleLaunch(spec: Spec = nfsSpec({ backend }), initramfs?: string): Launch {
  const boot = bootConfiguration(spec, {
    kernel: { path: "/boot/vmlinuz", sha256: "a" },
    nfsServerAddress: spec.useNfsRoot ? "127.0.0.1" : undefined,
    statefulDisk: "/state/my-vm/stateful.img",
  });
  return {
    vmName: spec.vmName,
    instance: "0123456789abcdef",
    boot,
    settings: { backend, powerState: "running", readiness: { timeoutSeconds: 1 }, shutdownTimeoutSeconds: 1 },
    paths: {
      directory: "/state/my-vm",
      kernel: "/state/my-vm/kernel",
      initramfs,
      controlSocket: "/run/x.sock",
      consoleLog: "/state/my-vm/serial/console",
      vsock: "/run/x.vs/s",
      events: "/state/my-vm/vmm-events.json",
      snapshots: "/state/my-vm/snapshots",
    },
    isAttached: false,
    network: { tap: "mvm0123456789ab", queuePairs: spec.vcpus, vsockCid: 4711 },
  };
}
