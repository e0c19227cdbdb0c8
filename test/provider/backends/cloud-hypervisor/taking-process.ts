/** Takes a snapshot, in a process that a test can kill. */

import type { SnapshotRequest } from "../../../../provider/backends/backend.js";
import { cloudHypervisor } from "../../../../provider/backends/cloud-hypervisor/cloud-hypervisor.js";
import { takeSnapshot } from "../../../../provider/backends/local/snapshot.js";

const request = JSON.parse(process.argv[2] ?? "") as SnapshotRequest;
const { signal } = new AbortController();
takeSnapshot(cloudHypervisor, { ...request, signal, notice: console.log }).catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
