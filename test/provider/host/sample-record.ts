/** A complete record to claim names with. */

import { randomBytes } from "node:crypto";

import type { Work } from "../../../provider/backends/backend.js";
import { thisProcess } from "../../../provider/host/process.js";
import type { VmRecord } from "../../../provider/host/record.js";

export function sampleRecord(changes: Partial<VmRecord> = {}): VmRecord {
  const instance = changes.instance ?? randomBytes(8).toString("hex");
  return {
    version: 1,
    vmName: "web",
    instance,
    owner: {
      organization: "organization",
      urn: "urn:pulumi:dev::shop::microvm:index:MicroVm::web",
      program: "/srv/shop",
    },
    phase: "claimed",
    creator: thisProcess(),
    controlSocket: `/nonexistent/${instance}.sock`,
    boot: {
      kernel: { path: "/boot/vmlinuz", sha256: "0".repeat(64) },
      initramfs: { path: "/boot/initrd", sha256: "1".repeat(64), generated: true },
      cmdline: "console=ttyS0 root=/dev/nfs",
      root: {
        type: "nfs",
        server: "10.0.2.2",
        hostServer: "127.0.0.1",
        port: 2049,
        mountPort: "rpcbind",
        path: "/srv",
      },
      disks: [{ path: "/srv/stateful.img", numQueues: 1 }],
      statefulDiskMiB: 8,
      link: {
        kind: "user",
        guestAddress: "10.0.2.15",
        gatewayAddress: "10.0.2.2",
        nameServers: ["10.0.2.3"],
      },
      portForwards: [{ hostPort: 8080, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }],
      vcpus: 1,
      memoryMiB: 256,
    },
    settings: {
      backend: { type: "qemu", machine: "q35", accelerator: "auto" },
      powerState: "running",
      readiness: { timeoutSeconds: 120 },
      shutdownTimeoutSeconds: 10,
    },
    proved: false,
    createdAt: "2026-11-24T08:00:00.000Z",
    ...changes,
  };
}

/** Work that is never aborted, and what was said meanwhile. */
export function sampleWork(): Work & { readonly lines: string[] } {
  const lines: string[] = [];
  return { signal: new AbortController().signal, notice: (line) => lines.push(line), lines };
}
