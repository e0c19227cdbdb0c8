/**
 * A guest on Cloud Hypervisor with nothing of the package between: `npm run lab:nested -- --story bare`. When this works and the story of the
 * package does not, the fault is the package's.
 */

import { equal, match } from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { type IncomingMessage, request } from "node:http";
import { mustRun } from "../run-process.js";
import { ask, makeBridge, ROOT, serveRoot, until } from "./site.js";

const HOST = "10.20.1.1";
const GUEST = "10.20.1.2";
const SOCKET = "/run/ch.sock";
const CONSOLE = "/out/console.log";

async function bare(): Promise<void> {
  await makeBridge("br0", [`${HOST}/24`]);
  await mustRun("ip", ["tuntap", "add", "tap0", "mode", "tap", "vnet_hdr"]);
  await mustRun("ip", ["link", "set", "tap0", "master", "br0", "up"]);
  const server = await serveRoot();
  const vmm = spawn(
    process.env["CLOUD_HYPERVISOR"] ?? "cloud-hypervisor",
    ["--api-socket", `path=${SOCKET}`],
    {
      stdio: "inherit",
    },
  );
  const ended = once(vmm, "exit");
  try {
    await until(30, async () => existsSync(SOCKET), Boolean);
    const nfs = `${HOST}:${ROOT},nfsvers=3,tcp,nolock,port=${server.nfsPort},mountport=${server.mountPort}`;
    await call("vm.create", {
      payload: {
        kernel: "/lab/kernel",
        cmdline: `console=ttyS0 root=/dev/nfs nfsroot=${nfs} ip=${GUEST}::${HOST}:255.255.255.0:bare:eth0:off rw vm_name="bare" panic=-1`,
      },
      cpus: { boot_vcpus: 1, max_vcpus: 2 },
      memory: { size: 256 * MIB, hotplug_size: 256 * MIB },
      net: [{ tap: "tap0" }],
      serial: { mode: "File", file: CONSOLE },
      console: { mode: "Off" },
    });
    await call("vm.boot");
    say("vm.boot is answered");
    const words = await until(120, () => ask(GUEST), Boolean);
    match(words ?? (await tail()), /my root is .* \(nfs\)/);
    say(words ?? "");
    await call("vm.resize", { desired_vcpus: 2, desired_ram: 384 * MIB });
    const grown = await until(
      60,
      () => ask(GUEST, "/cgi-bin/now"),
      (text = "") => /cpus 2\nmemory 3/.test(text),
    );
    say(`after a resize: ${grown?.replaceAll("\n", " ")}`);
    match(grown ?? "", /cpus 2\nmemory 3/);
    await call("vm.power-button");
    const [exitCode] = (await ended) as [number];
    equal(exitCode, 0);
    match(await readFile(CONSOLE, "utf8"), /goes off in an orderly way/);
    say("the guest went off in an orderly way, and the VMM with it");
  } finally {
    vmm.kill("SIGKILL");
    await server.stop();
  }
}

const MIB = 1024 * 1024;

function say(text: string): void {
  console.log(`bare: ${text}`);
}

async function tail(): Promise<string> {
  return (await readFile(CONSOLE, "utf8")).slice(-2000);
}

/** One call of Cloud Hypervisor's API; throws when it does not answer with success. */
async function call(name: string, body?: object): Promise<void> {
  const asked = request({ socketPath: SOCKET, path: `/api/v1/${name}`, method: "PUT" });
  asked.end(body === undefined ? undefined : JSON.stringify(body));
  const [answer] = (await once(asked, "response")) as [IncomingMessage];
  let text = "";
  for await (const chunk of answer) text += String(chunk);
  if (answer.statusCode !== 200 && answer.statusCode !== 204)
    throw new Error(`${name}: ${answer.statusCode} ${text}`);
}

bare().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
