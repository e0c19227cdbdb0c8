/** Makes the probes of the environment variable REQUESTS, a JSON list, and prints their findings as another. */

import { type ProbeRequest, probeNfs } from "../../../../provider/preflight/nfs/index.js";

async function main(): Promise<void> {
  const requests = JSON.parse(process.env["REQUESTS"] ?? "[]") as ProbeRequest[];
  const findings = [];
  for (const request of requests) findings.push(await probeNfs(request));
  process.stdout.write(JSON.stringify(findings));
}

void main();
