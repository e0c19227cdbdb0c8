/** Routes that ask the command server in a guest. */

import { z } from "zod";
import { downloadFromGuest, runInGuest, uploadToGuest } from "./guest-agent.js";
import { type Route, route } from "./route.js";
import { commandRequest, commandResponse, downloadResponse, uploadRequest, uploadResponse } from "./wire.js";

/** Largest body of an upload, in bytes. */
const UPLOAD_BYTES = 4 * 1024 * 1024;

export const guestRoutes: readonly Route[] = [
  route({
    method: "POST",
    path: "/v1/vms/{name}/cmd",
    summary: "Run a command in a VM",
    body: commandRequest,
    response: commandResponse,
    fails: [409, 502],
    async answer({ vms }, { name, body, tell }) {
      // What the command is may hold a secret: the log has only that there was one.
      tell(`runs a command in ${name}`);
      return await runInGuest(await vms.agentOf(name), body);
    },
  }),
  route({
    method: "POST",
    path: "/v1/vms/{name}/files",
    summary: "Upload files to VM",
    body: uploadRequest,
    bodyLimit: UPLOAD_BYTES,
    response: uploadResponse,
    fails: [409, 502],
    async answer({ vms }, { name, body, tell }) {
      tell(`uploads ${body.files.length} files to ${name}`);
      return await uploadToGuest(await vms.agentOf(name), body);
    },
  }),
  route({
    method: "GET",
    path: "/v1/vms/{name}/files",
    summary: "Download files from VM",
    query: z.object({ paths: z.string().meta({ description: "Paths of files, separated by commas" }) }),
    response: downloadResponse,
    fails: [409, 502],
    answer: async ({ vms }, { name, query }) => await downloadFromGuest(await vms.agentOf(name), query.paths),
  }),
];
