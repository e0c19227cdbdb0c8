/**
 * Inside a network namespace: create on Cloud Hypervisor up to the answer to vm.boot, against a shell script that makes the same tap and
 * rule and the same calls by curl, in turn; then many VMs at once. Guests are scripted ones. Its only argument is `{ pairs, many }`; it
 * prints the samples as JSON.
 */

import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Backend, CreateRequest } from "../../provider/backends/backend.js";
import { cloudHypervisor, programOf } from "../../provider/backends/cloud-hypervisor/cloud-hypervisor.js";
import { localBackend } from "../../provider/backends/local/local.js";
import { isInNamespace } from "../lab/namespace.js";
import { LocalLab } from "../provider/backends/local-lab.js";

/** What was measured. */
export interface VmmSamples {
  /** Seconds from create to the answer to vm.boot. */
  readonly ours: number[];
  /** Seconds of the script. */
  readonly script: number[];
  /** Seconds of one create, and of all at once. */
  readonly one: number;
  readonly all: number;
  /** Resident memory of this process while it holds them, in MiB. */
  readonly memoryMiB: number;
}

const BRIDGE = "microvm0";

async function measure(binary: string, pairs: number, many: number): Promise<VmmSamples> {
  let bootedAt = 0;
  const backend = localBackend(
    { ...cloudHypervisor, find: () => Promise.resolve(programOf(binary)) },
    // Called as soon as vm.boot was answered.
    () => Promise.resolve(void (bootedAt = performance.now())),
  );
  const lab = await LocalLab.openScripted(backend, { type: "cloud-hypervisor" });
  const folder = await mkdtemp(join(tmpdir(), "bench-vmm-"));
  const [ours, script]: [number[], number[]] = [[], []];
  try {
    // The bridge is there before both sides, and the libraries are loaded.
    const first = await lab.create();
    await writeFile(join(folder, "boot.sh"), scriptText(binary));
    execFileSync("nft", ["-f", "-"], { input: TABLE });
    for (let pair = 0; pair < pairs; pair += 1) {
      const request = await lab.request();
      const begun = performance.now();
      await backend.create(request);
      ours.push((bootedAt - begun) / 1000);
      await removed(backend, request);
      script.push(await runScript(folder, request.boot.kernel.path, pair));
    }
    const single = await lab.request();
    const begun = performance.now();
    await backend.create(single);
    const one = (performance.now() - begun) / 1000;
    const requests = await Promise.all(
      Array.from({ length: many }, async (_, index) => {
        const request = await lab.request({ vmName: `many-${index}` });
        const link = { ...request.boot.link, guestAddress: `10.20.200.${index + 1}` };
        return { ...request, boot: { ...request.boot, link } };
      }),
    );
    const allBegun = performance.now();
    await Promise.all(requests.map(async (request) => await backend.create(request)));
    const all = (performance.now() - allBegun) / 1000;
    const memoryMiB = process.memoryUsage().rss / 2 ** 20;
    for (const request of [...requests, single, first.request]) await removed(backend, request);
    return { ours, script, one, all, memoryMiB };
  } finally {
    await lab.close();
    await rm(folder, { recursive: true, force: true });
  }
}

async function removed(backend: Backend, { vmName, instance, stateDirectory }: CreateRequest): Promise<void> {
  const { signal } = new AbortController();
  const reference = { vmName, instance, stateDirectory };
  await backend.remove({ reference, shutdownTimeoutSeconds: 0, signal, notice: () => undefined });
}

/** As a VM's rules have it: there from the first VM on. */
const TABLE = `add table ip bench
add chain ip bench raw { type filter hook prerouting priority -300; }
add chain ip bench postrouting { type nat hook postrouting priority 100; }
add chain ip bench forward { type filter hook forward priority 0; }`;

/**
 * What a person would write for the same VM: the same tap, rules of the same meaning, the same calls. It looks for nothing that may be
 * there, keeps no record and waits for no disk. $1 is a folder, $2 the kernel, $3 the name of the tap.
 */
function scriptText(binary: string): string {
  return `set -e
mkdir -m 700 "$1"
cp "$2" "$1/kernel"
ip -batch - <<END
tuntap add dev $3 mode tap vnet_hdr
link set dev $3 addrgenmode none alias "bench $3"
link set dev $3 master ${BRIDGE}
link set dev $3 type bridge_slave isolated on
link set dev $3 up
END
nft -f - <<END
${TABLE}
add rule ip bench raw iifname "${BRIDGE}" ip daddr 127.0.0.0/8 drop
add rule ip bench postrouting ip saddr 10.20.0.2 ip daddr != 10.20.0.0/16 oifname != "${BRIDGE}" masquerade
add rule ip bench forward iifname "${BRIDGE}" oifname "${BRIDGE}" ip daddr 10.20.0.2 ct status & dnat == 0 drop
END
setsid '${binary}' --api-socket "path=$1/api.sock" --seccomp true >"$1/vmm.log" 2>&1 </dev/null &
while [ ! -S "$1/api.sock" ]; do sleep 0.005; done
ask() { curl -sf --unix-socket "$folder/api.sock" -X "$1" "http://localhost/api/v1/$2" -d "$3"; }
folder=$1
curl -sf --unix-socket "$1/api.sock" http://localhost/api/v1/vmm.ping >/dev/null
ask PUT vm.create '{
  "payload": { "kernel": "'"$1"'/kernel", "cmdline": "console=ttyS0" },
  "cpus": { "boot_vcpus": 1, "max_vcpus": 1 }, "memory": { "size": 268435456 },
  "net": [{ "id": "net0", "tap": "'"$3"'", "mac": "02:00:00:00:00:01", "num_queues": 2 }],
  "rng": { "src": "/dev/urandom" }, "serial": { "mode": "File", "file": "'"$1"'/console.log" },
  "console": { "mode": "Off" }, "vsock": { "cid": 4711, "socket": "'"$1"'/vsock" }, "landlock_enable": true }'
ask PUT vm.boot ''
`;
}

/** Seconds that the script takes; what it made is removed. */
async function runScript(folder: string, kernel: string, pair: number): Promise<number> {
  const [own, tap] = [join(folder, String(pair)), `bench${pair}`];
  const begun = performance.now();
  execFileSync("sh", [join(folder, "boot.sh"), own, kernel, tap]);
  const seconds = (performance.now() - begun) / 1000;
  const shutdown = "http://localhost/api/v1/vmm.shutdown";
  execFileSync("curl", ["-sf", "--unix-socket", join(own, "api.sock"), "-X", "PUT", shutdown]);
  execFileSync("ip", ["link", "delete", tap]);
  execFileSync("nft", ["flush", "table", "ip", "bench"]);
  await rm(own, { recursive: true, force: true });
  return seconds;
}

if (require.main === module) {
  if (!isInNamespace()) throw new Error("this runs in a network namespace alone");
  const { binary, pairs, many } = JSON.parse(process.argv[2] ?? "") as {
    readonly binary: string;
    readonly pairs: number;
    readonly many: number;
  };
  void measure(binary, pairs, many).then((samples) => console.log(JSON.stringify(samples)));
}
