/**
 * Records what a real Arrakis answers, for tests on machines that have none:
 * `unshare --net --mount npx tsx test/lab/record-arrakis.ts NAME` (as root, with ARRAKIS_RESTSERVER, ARRAKIS_CMDSERVER and
 * CLOUD_HYPERVISOR) rewrites test/provider/backends/arrakis/recorded/NAME.json.
 */

import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

import { type RealArrakis, startArrakis, whyNoArrakis } from "./arrakis.js";

/** One answer, as it came. */
export interface Answer {
  readonly status: number;
  readonly body: unknown;
}

const FOLDER = resolve(__dirname, "../provider/backends/arrakis/recorded");
const MOUNTS = "10.20.1.1:/ / nfs rw,relatime,vers=3,port=11111,mountport=11111,addr=10.20.1.1 0 0\n";
const NFS = { useNfsRoot: true, nfsServer: "10.20.1.1", nfsPort: 11111, nfsPath: "/" };

async function record(name: string): Promise<void> {
  const arrakis = await startArrakis();
  try {
    const answers = await scenario(arrakis);
    const file = join(FOLDER, `${name}.json`);
    await mkdir(dirname(file), { recursive: true });
    const text = JSON.stringify(answers, undefined, 2);
    const plain = text
      .replaceAll(arrakis.kernel, "/srv/kernel")
      .replaceAll(arrakis.image, "/srv/image")
      .replaceAll(/\d{4}-\d\d-\d\dT[\d:]+Z/g, "2026-01-01T00:00:00Z");
    await writeFile(file, `${plain}\n`);
  } finally {
    await arrakis.stop();
  }
}

/** Every answer that the back end can meet, by what it is an answer to. */
async function scenario({ url, setMounts, silenceGuests, image }: RealArrakis) {
  const answers: Record<string, Answer> = {};
  const ask = async (what: string, method: string, path: string, body?: unknown): Promise<void> => {
    const response = await fetch(`${url}/v1${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    answers[what] = { status: response.status, body: jsonOr(text) };
  };
  const patch = async (what: string, status: string) => await ask(what, "PATCH", "/vms/web", { status });
  await setMounts(MOUNTS);
  await ask("health", "GET", "/health");
  await ask("empty list", "GET", "/vms");
  await ask("start without a name", "POST", "/vms", {});
  await ask("start", "POST", "/vms", { vmName: "web", ...NFS });
  await ask("running", "GET", "/vms");
  await ask("mounts", "POST", "/vms/web/cmd", { cmd: "cat /proc/mounts", blocking: true });
  await ask("failed command", "POST", "/vms/web/cmd", { cmd: "exit 3", blocking: true });
  await ask("upload", "POST", "/vms/web/files", { files: [{ path: "a.txt", content: "hi" }] });
  await ask("download", "GET", "/vms/web/files?paths=a.txt,none");
  await patch("pause", "paused");
  await ask("paused", "GET", "/vms");
  await patch("resume", "resume");
  await ask("start of one that runs", "POST", "/vms", { vmName: "web", ...NFS });
  await patch("no status", "nonsense");
  await ask("snapshot", "POST", "/vms/web/snapshots", { snapshotId: "web-0123456789abcdef" });
  await patch("stop", "stopped");
  await ask("stopped", "GET", "/vms");
  await patch("resume of one that is off", "resume");
  await ask("start again", "POST", "/vms", { vmName: "web", ...NFS });
  await ask("running again", "GET", "/vms");
  silenceGuests();
  await ask("silent guest", "POST", "/vms/web/cmd", { cmd: "cat /proc/mounts", blocking: true });
  await ask("destroy", "DELETE", "/vms/web");
  await ask("unknown: destroy", "DELETE", "/vms/web");
  await ask("unknown: get", "GET", "/vms/web");
  await ask("unknown: command", "POST", "/vms/web/cmd", { cmd: "true", blocking: true });
  await ask("unknown: pause", "PATCH", "/vms/web", { status: "paused" });
  await ask("failed start", "POST", "/vms", { vmName: "web", kernel: image, ...NFS });
  await ask("list after a failed start", "GET", "/vms");
  return answers;
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

const [name] = process.argv.slice(2);
const why = name === undefined ? "give a name for the recording" : whyNoArrakis();
if (name === undefined || why !== undefined) throw new Error(why);
void record(name).then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(error);
    process.exit(1);
  },
);
