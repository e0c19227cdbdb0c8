/** Every route of the server, in one table. */

import { z } from "zod";
import { version } from "../version.js";
import { Refusal } from "./refusal.js";
import { Content, type Route, route } from "./route.js";
import {
  destroyAllResponse,
  features,
  health,
  snapshotRequest,
  snapshotResponse,
  startVmResponse,
  startVmRequest,
  updateVmRequest,
  vm,
  vmList,
  vmResponse,
} from "./wire.js";

const JSON_TYPE = "application/json; charset=utf-8";

const dryRunQuery = z.object({
  dryRun: z
    .enum(["true", "false"])
    .optional()
    .meta({ description: "true: say what would be booted, or why not, and make nothing" }),
});

/** Routes of the API. */
export const routes: readonly Route[] = [
  route({
    method: "GET",
    path: "/v1/health",
    summary: "Health check endpoint",
    response: health,
    fails: [503],
    async answer({ unusable }) {
      const why = await unusable();
      if (why !== undefined) throw new Refusal(503, why, "host-unusable");
      return {
        status: "healthy",
        timestamp: new Date().toISOString(),
        server: `microvm-restserver ${version}`,
        features: [...features],
      };
    },
  }),
  route({
    method: "GET",
    path: "/v1/vms",
    summary: "List all VMs",
    response: vmList,
    answer: async ({ vms }) => new Content(JSON_TYPE, await vms.listText()),
  }),
  route({
    method: "POST",
    path: "/v1/vms",
    summary: "Start a VM",
    body: startVmRequest,
    query: dryRunQuery,
    response: startVmResponse,
    fails: [404, 409, 503],
    async answer({ vms }, { body, query, tell }) {
      if (query.dryRun === "true") return await vms.plan(body);
      const made = await vms.create(body);
      tell(`made the VM ${made.vmName}`);
      return made;
    },
  }),
  route({
    method: "DELETE",
    path: "/v1/vms",
    summary: "Destroy all VMs",
    response: destroyAllResponse,
    async answer({ vms }, { tell }) {
      tell("asks for the removal of all VMs");
      const { removed, failed } = await vms.removeAll();
      tell(
        failed.size === 0 ? `removed all ${removed} VMs` : `removed ${removed} VMs, and ${failed.size} not`,
      );
      if (failed.size > 0) throw left(removed, failed);
      return { success: true };
    },
  }),
  route({
    method: "GET",
    path: "/v1/vms/{name}",
    summary: "Get details of a specific VM",
    response: vm,
    answer: async ({ vms }, { name }) => await vms.get(name),
  }),
  route({
    method: "PATCH",
    path: "/v1/vms/{name}",
    summary: "Update the state of a specific VM",
    body: updateVmRequest,
    response: vmResponse,
    fails: [409, 503],
    async answer({ vms }, { name, body, tell }) {
      const message = await vms.change(name, body.status);
      tell(message);
      return { success: true, message };
    },
  }),
  route({
    method: "DELETE",
    path: "/v1/vms/{name}",
    summary: "Destroy a specific VM",
    response: vmResponse,
    fails: [409, 503],
    async answer({ vms }, { name, tell }) {
      await vms.remove(name);
      tell(`removed the VM ${name}`);
      return { success: true, message: `${name} is removed` };
    },
  }),
  route({
    method: "POST",
    path: "/v1/vms/{name}/snapshots",
    summary: "Create a snapshot of a VM",
    body: snapshotRequest.optional(),
    response: snapshotResponse,
    fails: [409, 503],
    async answer({ vms }, { name, body, tell }) {
      const snapshotId = await vms.snapshot(name, body?.snapshotId);
      tell(`took the snapshot ${snapshotId} of ${name}`);
      return { snapshotId };
    },
  }),
  route({
    method: "GET",
    path: "/metrics",
    summary: "Metrics in the text format of Prometheus",
    answer: async ({ metrics }) => new Content(metrics.contentType, await metrics.text()),
  }),
];

/** Not all is done: those that are left, with the reason for each. */
function left(removed: number, failed: ReadonlyMap<string, string>): Refusal {
  const each = [...failed].map(([vmName, why]) => `${vmName}: ${why}`);
  return new Refusal(500, [`removed ${removed} VMs; these are left:`, ...each].join("\n"));
}
