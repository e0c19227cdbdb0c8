/** Every route of the server, in one table: what it takes, what it answers, what does it. */

import { z } from "zod";
import { version } from "../version.js";
import { downloadFromGuest, runInGuest, uploadToGuest } from "./guest-agent.js";
import type { Metrics } from "./metrics.js";
import { Refusal } from "./refusal.js";
import type { Vms } from "./vms.js";
import {
  commandRequest,
  commandResponse,
  destroyAllResponse,
  downloadResponse,
  dryRunResponse,
  features,
  health,
  snapshotRequest,
  snapshotResponse,
  startVmRequest,
  updateVmRequest,
  uploadRequest,
  uploadResponse,
  vm,
  vmList,
  vmResponse,
} from "./wire.js";

/** What the routes work on. */
export interface Served {
  readonly vms: Vms;
  readonly metrics: Metrics;
  /** Why this host cannot run a VM now; undefined when it can. */
  readonly unusable: () => Promise<string | undefined>;
}

/** One request, checked against the schemas of its route. */
export interface Call<Body = unknown, Query = unknown> {
  /** `{name}` of the path, as it came. */
  readonly name: string;
  readonly body: Body;
  readonly query: Query;
  /** For the log: a line that says that something was done, and by whom. */
  readonly tell: (what: string) => void;
}

/** An answer that is not made from an object. */
export class Content {
  constructor(
    readonly type: string,
    readonly text: string,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {}
}

/** One route. */
export interface Route {
  readonly method: "GET" | "POST" | "PATCH" | "DELETE";
  /** Path with `{name}`, as OpenAPI writes it. */
  readonly path: string;
  readonly summary: string;
  /** Schema of the JSON body; absent where none is taken. */
  readonly body?: z.ZodType;
  /** Schema of the query; absent where none is taken. */
  readonly query?: z.ZodType;
  /** Schema of the answer; absent for one that is no JSON. */
  readonly response?: z.ZodType;
  /** Present and true for what tells nothing of this host, so that no token is asked for. */
  readonly open?: true;
  /** Largest body, in bytes; the server's usual one when absent. */
  readonly bodyLimit?: number;
  readonly answer: (served: Served, call: Call) => Promise<unknown>;
}

/** A route whose body and query have the types of their schemas. */
export function route<Body extends z.ZodType = z.ZodUnknown, Query extends z.ZodType = z.ZodUnknown>(
  given: Omit<Route, "body" | "query" | "answer"> & {
    readonly body?: Body;
    readonly query?: Query;
    readonly answer: (served: Served, call: Call<z.output<Body>, z.output<Query>>) => Promise<unknown>;
  },
): Route {
  return given as Route;
}

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
    response: z.union([vm, dryRunResponse]),
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
