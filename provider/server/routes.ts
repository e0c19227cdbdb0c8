/** Every route of the server, in one table. */

import { z } from "zod";
import { version } from "../version.js";
import { downloadFromGuest, runInGuest, uploadToGuest } from "./guest-agent.js";
import { Refusal } from "./refusal.js";
import { Content, type Route, route } from "./route.js";
import {
  commandRequest,
  commandResponse,
  destroyAllResponse,
  downloadResponse,
  features,
  health,
  snapshotRequest,
  snapshotResponse,
  startVmResponse,
  startVmRequest,
  updateVmRequest,
  uploadRequest,
  uploadResponse,
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

const filesQuery = z.object({
  paths: z.string().min(1).meta({ description: "Comma-separated list of file paths to download" }),
});

/** Files come as JSON, and stand in memory. */
const MOST_UPLOAD_BYTES = 16 * 1024 * 1024;

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
    fails: [409, 503],
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
      tell(`removed all ${await vms.removeAll()} VMs`);
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
    method: "POST",
    path: "/v1/vms/{name}/cmd",
    summary: "Execute command in VM",
    body: commandRequest,
    response: commandResponse,
    async answer({ vms }, { name, body, tell }) {
      const agent = await vms.agentOf(name);
      tell(`runs a command in ${name}`);
      return await runInGuest(agent, body);
    },
  }),
  route({
    method: "POST",
    path: "/v1/vms/{name}/files",
    summary: "Upload files to VM",
    body: uploadRequest,
    bodyLimit: MOST_UPLOAD_BYTES,
    response: uploadResponse,
    async answer({ vms }, { name, body, tell }) {
      const agent = await vms.agentOf(name);
      tell(`writes ${body.files.length} files in ${name}`);
      return await uploadToGuest(agent, body);
    },
  }),
  route({
    method: "GET",
    path: "/v1/vms/{name}/files",
    summary: "Download files from VM",
    query: filesQuery,
    response: downloadResponse,
    answer: async ({ vms }, { name, query }) => await downloadFromGuest(await vms.agentOf(name), query.paths),
  }),
  route({
    method: "GET",
    path: "/metrics",
    summary: "Metrics in the text format of Prometheus",
    answer: async ({ metrics }) => new Content(metrics.contentType, await metrics.text()),
  }),
];
