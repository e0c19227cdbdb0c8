/**
 * `npm run lab:nested -- --story user-network`, with a passt on PATH: the life of a VM on the user network of passt, with a real guest whose
 * root is served on the loopback of its host alone, by the provider's own functions.
 */

import { deepEqual, equal, match } from "node:assert/strict";

import { cp } from "node:fs/promises";
import { dirname } from "node:path";
import { makeGuestRoot } from "../guest.js";
import { startNfsServer } from "../nfs.js";
import { Resource } from "./resource.js";
import { ask, hostState, left, makeBeyond, ROOT, until } from "./site.js";

const PORT = 8081;

const isLog = (path: string): boolean => !/\/kernel$|\/serial/.test(path);

async function story(): Promise<void> {
  await makeBeyond();
  await makeGuestRoot(ROOT);
  const server = await startNfsServer({ exports: [{ path: ROOT }] });
  try {
    const before = await hostState();
    const vm = new Resource("user");
    const program = {
      backend: { type: "cloud-hypervisor" },
      network: { passt: true },
      kernel: "/lab/kernel",
      useNfsRoot: true,
      nfsServer: "127.0.0.1",
      nfsPort: server.nfsPort,
      nfsMountPort: server.mountPort,
      nfsPath: ROOT,
      memoryMiB: 256,
      maxMemoryMiB: 512,
      portForwards: [{ hostPort: PORT, guestPort: 80 }],
      readiness: { timeoutSeconds: 240 },
      shutdownTimeoutSeconds: 30,
    };
    equal((await vm.up(program)).action, "create");
    const { state, rootEvidence, guestIp } = vm.outputs;
    deepEqual([state, rootEvidence, guestIp], ["running", "proved", "10.0.2.15"]);
    console.log("ok      create boots a guest that proves its root");

    const said = await until(180, async () => await ask(`127.0.0.1:${PORT}`), Boolean);
    await cp(dirname(String(vm.outputs["consoleLog"])), "/out/user", { recursive: true, filter: isLog });
    match(said ?? "", /my root is 10\.0\.2\.2:.* \(nfs\)/);
    console.log(`ok      the guest answers at the forward: ${said?.split("\n")[1]}`);

    deepEqual(await vm.up(program), { action: "same", replaces: [] });
    equal((await vm.up({ ...program, memoryMiB: 384 })).action, "update");
    console.log("ok      the same program changes nothing, memory grows in place");

    await vm.up({ ...program, memoryMiB: 384, powerState: "stopped" });
    await vm.up({ ...program, memoryMiB: 384, powerState: "running" });
    match((await until(180, async () => await ask(`127.0.0.1:${PORT}`), Boolean)) ?? "", /my root is/);
    console.log("ok      it stops, and starts again with a network");

    const { replaces } = await vm.up({ ...program, memoryMiB: 384, portForwards: [] });
    deepEqual(replaces, ["portForwards"]);
    console.log("ok      other forwards are a replace");

    await vm.destroy();
    deepEqual(await left(before), []);
    console.log("ok      the delete leaves nothing");
  } finally {
    await server.stop();
  }
}

story().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
