/** The life of VMs on the real Arrakis, told line by line: `unshare --net --mount node --import tsx real-arrakis.ts`. */

import { arrakis } from "../../../../provider/backends/arrakis/arrakis.js";
import type { CreateRequest, ServerVm, VmReference } from "../../../../provider/backends/backend.js";
import { MicroVmError } from "../../../../provider/errors.js";
import { startArrakis } from "../../../lab/arrakis.js";
import { asking, forget } from "./asking.js";
import { NFS_MOUNTS } from "./stand-in.js";

const say = (what: string, ...found: unknown[]) => process.stdout.write(`${what}: ${found.join(", ")}\n`);

async function live(): Promise<void> {
  const server = await startArrakis();
  const backend = arrakis({ type: "arrakis", url: server.url });
  const first = await asking();
  const { stateDirectory } = first;
  const other = async (changes: Partial<CreateRequest<ServerVm>> = {}) =>
    (await asking({ vmName: "other", ...changes }, stateDirectory)).request;
  const stateOf = async (reference: VmReference) => (await backend.observe(reference)).state;
  const failed = async (what: string, request: CreateRequest<ServerVm>) => {
    const error: unknown = await backend.create(request).catch((thrown: unknown) => thrown);
    const code = error instanceof MicroVmError ? error.code : String(error);
    say(what, code, (await stateOf(request)) === "gone" ? "removed" : "left");
  };
  try {
    await server.setMounts(NFS_MOUNTS);
    const { request } = first;
    const { signal, notice } = request;
    const made = await backend.create(request);
    say("created", made.state, made.rootEvidence, made.guestIp);
    const again: unknown = await backend.create(request).catch((thrown: unknown) => thrown);
    say("a second create of the name", (again as MicroVmError).code);
    const to = async (powerState: "running" | "paused" | "stopped") =>
      await backend.update({ ...request, reference: request, settings: { ...request.settings, powerState } });
    say("paused", (await to("paused")).state);
    say("resumed", (await to("running")).state);
    say("stopped", (await to("stopped")).state);
    const booted = await to("running");
    say("booted again", booted.state, booted.rootEvidence);

    await server.setMounts(NFS_MOUNTS.replace("/srv/root", "/srv/other"));
    await failed("another root", await other());
    const start = { vmName: "other", useNfsRoot: false, nfsServer: "10.20.1.1", nfsPort: 11111 };
    await failed("a disk root that NFS covers", await other({ start }));
    const unbootable = { ...(await other()).start, kernel: server.image };
    await failed("a kernel that does not boot", await other({ start: unbootable }));

    server.silenceGuests();
    // The server itself waits a minute for a guest's command server: one that is there boots again meanwhile.
    const strict = { ...request.settings, readiness: { timeoutSeconds: 1, required: true } };
    await failed("a silent guest that must show its root", await other({ settings: strict }));

    const removal = { reference: request, shutdownTimeoutSeconds: 1, signal, notice };
    for (const what of ["removed", "removed again"]) {
      await backend.remove(removal);
      say(what, await stateOf(request));
    }
  } finally {
    await server.stop();
    await forget(first);
  }
}

void live().then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(error);
    process.exit(1);
  },
);
