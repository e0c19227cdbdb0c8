/** What a guest with `guestAccess: "nfs-only"` reaches of this host and beyond, tried from inside the guest. */

import { createHash, randomBytes } from "node:crypto";
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { appendFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import type { CreateRequest, VmOutputs, VmReference } from "../../../../provider/backends/backend.js";
import { backendOf } from "../../../../provider/backends/index.js";
import { findByArgument } from "../../../../provider/host/process.js";
import { makeGuestRoot } from "../../../lab/guest.js";
import { freePort, type NfsServer, startNfsServer, whyNoNfsServer } from "../../../lab/nfs.js";
import { isOnPath } from "../../../lab/programs.js";
import { LocalLab, type VmChoice } from "../local-lab.js";

const kernel = process.env["MICROVM_LAB_NFS_KERNEL"] ?? process.env["MICROVM_LAB_KERNEL"];
const missing =
  whyNoNfsServer() ??
  (isOnPath("qemu-system-x86_64") ? undefined : "qemu-system-x86_64 is not installed") ??
  (kernel === undefined ? "MICROVM_LAB_KERNEL is not set" : undefined);

/** Another loopback address of this host, which the guest is made to route over its link: for that, any address is one beyond it. */
const BEYOND = "127.0.0.2";
const FILE_MIB = 64;

/** What the host serves beside the root. */
interface Services {
  readonly tcpPort: number;
  readonly udpPort: number;
  readonly datagrams: string[];
  close(): void;
}

async function openServices(): Promise<Services> {
  const servers: Server[] = [];
  const tcpPort = await freePort();
  for (const host of ["127.0.0.1", BEYOND]) {
    const server = createServer((socket) => socket.on("error", () => undefined).end("reached\n"));
    servers.push(server.listen(tcpPort, host));
    await once(server, "listening");
  }
  const datagrams: string[] = [];
  const udp: UdpSocket = createSocket("udp4", (message) => datagrams.push(message.toString("latin1")));
  udp.bind(0, "127.0.0.1");
  await once(udp, "listening");
  const close = (): void => {
    for (const server of servers) server.close();
    udp.close();
  };
  return { tcpPort, udpPort: udp.address().port, datagrams, close };
}

/** What the guest tries once it is up; it says what it found into its root. */
function probeScript({ tcpPort, udpPort }: Services, nfsPort: number): string {
  return `
try() {
  if timeout 5 nc -w 3 "$2" "$3" < /dev/null | grep -q reached; then echo "$1: reached"; else echo "$1: not"; fi
}
mkdir -p /var/found
ip address del 127.0.0.1/8 dev lo
ip address add 127.0.0.1/32 dev lo
echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
ip route add ${BEYOND}/32 via 10.0.2.2
{
  try "the host's loopback by its address on the link" 10.0.2.2 ${tcpPort}
  try "the same on the server's address" 10.0.2.100 ${tcpPort}
  try "an address beyond" ${BEYOND} ${tcpPort}
  timeout 3 tftp -g -l /dev/null -r from-$name 10.0.2.2 ${udpPort} 2> /dev/null
  if timeout 3 nc -w 2 10.0.2.2 ${nfsPort} < /dev/null > /dev/null 2>&1; then
    echo "the NFS server by the host's address: reached"
  else
    echo "the NFS server by the host's address: not"
  fi
  [ $name != vm-alone ] || ! timeout 3 nslookup localhost 10.0.2.3 > /dev/null 2>&1 || echo "the name server: reached"
} > /var/found/$name.new
mv /var/found/$name.new /var/found/$name
md5sum < /big > /var/found/$name.md5
(
  until [ -e /var/found/open-many ]; do usleep 200000; done
  many=0; while [ $many -lt 60 ]; do many=$((many + 1)); (sleep 30 | nc 10.0.2.100 ${nfsPort} > /dev/null 2>&1 &); done
) &
( tick=0; while :; do tick=$((tick + 1)); echo $tick > /var/found/$name.tick; usleep 200000; done ) &
`;
}

function argumentsOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return []; // it has ended
  }
}

if (missing !== undefined || kernel === undefined) {
  describe("qemu, a guest that reaches its NFS root alone", () =>
    it.skip(`skipped: ${missing}`, () => undefined));
} else {
  describe("qemu, a guest that reaches its NFS root alone", () => {
    let lab: LocalLab;
    let root: string;
    let server: NfsServer;
    let services: Services;
    let md5: string;
    let request: CreateRequest;
    let vm: VmOutputs;
    let reference: VmReference;
    let hostPort: number;

    const choice = (guestAccess: "internet" | "nfs-only"): VmChoice => ({
      vmName: guestAccess === "nfs-only" ? "vm-alone" : "vm-internet",
      server,
      nfsPath: root,
      guestAccess,
    });

    const said = async (name: string): Promise<string> =>
      await readFile(join(root, "var/found", name), "utf8").catch(() => "");

    /** Process ids of relays to this server. */
    const relays = (): number[] =>
      findByArgument("allowHalfOpen").flatMap(({ pid }) =>
        argumentsOf(pid).includes(String(server.nfsPort)) ? [pid] : [],
      );

    const relaysWithin = async (milliseconds: number): Promise<number> => {
      const pids = new Set<number>();
      for (const end = Date.now() + milliseconds; Date.now() < end; await delay(25)) {
        for (const pid of relays()) pids.add(pid);
      }
      return pids.size;
    };

    beforeAll(async () => {
      lab = await LocalLab.open(backendOf({ type: "qemu", machine: "q35", accelerator: "auto" }), kernel);
      services = await openServices();
      root = join(lab.folder, "probing");
      await mkdir(root);
      await makeGuestRoot(root);
      const big = randomBytes(FILE_MIB * 2 ** 20);
      md5 = createHash("md5").update(big).digest("hex");
      await writeFile(join(root, "big"), big);
      server = await startNfsServer({ exports: [{ path: root }] });
      await appendFile(join(root, "etc/init.d/rcS"), probeScript(services, server.nfsPort));
      await rm(join(root, "var/found"), { recursive: true, force: true });
    });

    afterAll(async () => {
      services.close();
      await server.stop();
      await lab.close();
    });

    it("boots from an address of its own, with the sandbox of QEMU on", async () => {
      hostPort = await freePort();
      const portForwards = [{ hostPort, guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }] as const;
      // Several connections at once: each has a relay.
      const made = await lab.request({ ...choice("nfs-only"), portForwards });
      const cmdline = made.boot.cmdline.replace(",nolock", ",nolock,nconnect=2");
      request = { ...made, boot: { ...made.boot, cmdline } };
      vm = await lab.backend.create(request);
      const { vmName, instance, stateDirectory } = request;
      reference = { vmName, instance, stateDirectory, hostId: vm.hostId };
      expect(vm).toMatchObject({ state: "running", rootEvidence: "proved" });
      expect(request.boot.cmdline).toContain(` nfsroot=10.0.2.100:${root},`);
      expect(request.boot.cmdline).toMatch(
        / ip=10\.0\.2\.15::10\.0\.2\.2:255\.255\.255\.0:vm-alone:eth0:off rw /,
      );
      const status = await readFile(`/proc/${vm.pid}/status`, "utf8");
      expect(status).toMatch(/^NoNewPrivs:\s1$/m);
      expect(status).toMatch(/^Seccomp:\s2$/m);
    });

    it("reaches nothing beside it, over TCP or UDP", async () => {
      await expect.poll(async () => await said("vm-alone"), { timeout: 60_000 }).not.toBe("");
      expect((await said("vm-alone")).trim().split("\n")).toEqual([
        "the host's loopback by its address on the link: not",
        "the same on the server's address: not",
        "an address beyond: not",
        "the NFS server by the host's address: not",
      ]);
      expect(services.datagrams).toEqual([]);
    });

    it("reads a large file through its relays unchanged", async () => {
      await expect.poll(async () => await said("vm-alone.md5"), { timeout: 120_000 }).toContain(md5);
      expect(relays()).toHaveLength(2);
    });

    it("goes on with its root when the NFS server was restarted", async () => {
      await expect
        .poll(async () => Number(await said("vm-alone.tick")), { timeout: 20_000 })
        .toBeGreaterThan(0);
      const { nfsPort, mountPort } = server;
      await server.kill();
      const seen = await relaysWithin(5000);
      // One tries again and again, instead of the guest by one after the other.
      expect(seen).toBeLessThan(6);
      server = await startNfsServer({ exports: [{ path: root }], nfsPort, mountPort });
      const before = Number(await said("vm-alone.tick"));
      await expect
        .poll(async () => Number(await said("vm-alone.tick")), { timeout: 120_000 })
        .toBeGreaterThan(before + 5);
    });

    it("answers on a forwarded port", async () => {
      const answer = await (await fetch(`http://127.0.0.1:${hostPort}/`)).text();
      expect(answer).toContain(`my root is 10.0.2.100:${root} (nfs)`);
    });

    it("has a bounded number of relays, however many connections it opens", async () => {
      await writeFile(join(root, "var/found/open-many"), "");
      await expect.poll(() => relays().length, { timeout: 60_000 }).toBeGreaterThanOrEqual(16);
      expect(await relaysWithin(5000)).toBeLessThan(20);
      const before = Number(await said("vm-alone.tick"));
      await expect
        .poll(async () => Number(await said("vm-alone.tick")), { timeout: 20_000 })
        .toBeGreaterThan(before);
    });

    it("leaves no relay behind when it is removed", async () => {
      await lab.remove(reference);
      expect(lab.leftoversOf(reference)).toEqual([]);
      await expect.poll(relays, { timeout: 15_000 }).toEqual([]);
    });

    it('reaches all of it with "internet", which shows that the probes work', async () => {
      const { reference: other } = await lab.create(choice("internet"));
      await expect.poll(async () => await said("vm-internet"), { timeout: 60_000 }).not.toBe("");
      expect((await said("vm-internet")).trim().split("\n")).toEqual([
        "the host's loopback by its address on the link: reached",
        "the same on the server's address: not",
        "an address beyond: reached",
        "the NFS server by the host's address: reached",
      ]);
      expect(services.datagrams.join()).toContain("from-vm-internet");
      await lab.remove(other, 0);
      expect(lab.leftoversOf(other)).toEqual([]);
    });
  });
}
