/** Requests of the tests' back end. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { CreateRequest, ServerVm } from "../../../../provider/backends/backend.js";

const OWNER = { organization: "org", urn: "urn:pulumi:dev::p::microvm:index:MicroVm::web", program: "/p" };

/** What a test asks for: a VM `web` with an NFS root, and what its notices say. */
export interface Asking {
  readonly request: CreateRequest<ServerVm>;
  readonly notices: string[];
  readonly stateDirectory: string;
}

let count = 0;

/** One create, with a state directory of its own unless given. */
export async function asking(
  changes: Partial<CreateRequest<ServerVm>> = {},
  inDirectory?: string,
): Promise<Asking> {
  const stateDirectory = inDirectory ?? (await mkdtemp(join(tmpdir(), "microvm-asked-")));
  const notices: string[] = [];
  const vmName = changes.vmName ?? "web";
  const request: CreateRequest<ServerVm> = {
    vmName,
    instance: (++count).toString(16).padStart(16, "0"),
    stateDirectory,
    owner: OWNER,
    start: { vmName, useNfsRoot: true, nfsServer: "10.20.1.1", nfsPort: 11111, nfsPath: "/srv/root" },
    settings: { powerState: "running", readiness: { timeoutSeconds: 2 }, shutdownTimeoutSeconds: 1 },
    isNameGenerated: true,
    signal: new AbortController().signal,
    notice: (line) => notices.push(line),
    ...changes,
  };
  return { request, notices, stateDirectory };
}

/** Removes what {@link asking} made. */
export async function forget({ stateDirectory }: Asking): Promise<void> {
  await rm(stateDirectory, { recursive: true, force: true });
}
