/** What the story's guests stand on, inside the nested machine: a served root, a network beyond it, and what of a VM can be left on a host. */

import { appendFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { makeGuestRoot } from "../guest.js";
import { type NfsServer, startNfsServer } from "../nfs.js";
import { mustRun, runProcess } from "../run-process.js";

/** The guest's root. */
export const ROOT = "/srv/root";

/** Added to what the guest does: it takes processors and memory into use as udev would, tells what it has, and tries whom it reaches. */
const GUEST_EXTRAS = `
mkdir -p /run/www/cgi-bin
cat > /run/www/cgi-bin/now <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "cpus $(grep -c ^processor /proc/cpuinfo)"
echo "memory $(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)"
echo "disk $(($(cat /sys/block/vda/size 2>/dev/null || echo 0) / 2048))"
END
chmod 755 /run/www/cgi-bin/now
(while sleep 1; do
  for file in /sys/devices/system/cpu/cpu*/online; do
    [ "$(cat "$file" 2>/dev/null)" = 0 ] && echo 1 > "$file"
  done
  for file in /sys/devices/system/memory/memory*/state; do
    [ "$(cat "$file" 2>/dev/null)" = offline ] && echo online > "$file"
  done
done) &
(while read -r host port; do
  if nc -w 3 "$host" "$port" </dev/null >/dev/null 2>&1; then said=yes; else said=no; fi
  echo "guest: reaches $host $port: $said" > /dev/console
done </etc/reach; echo "guest: tried all" > /dev/console) &
`;

/** Makes the guest's root and serves it on every address of the machine. */
export async function serveRoot(): Promise<NfsServer> {
  await makeGuestRoot(ROOT);
  await appendFile(`${ROOT}/etc/init.d/rcS`, GUEST_EXTRAS);
  await reachList([]);
  return await startNfsServer({ address: "0.0.0.0", exports: [{ path: ROOT }] });
}

/** Whom guests that start from now on try to reach: `HOST PORT`. */
export async function reachList(targets: readonly string[]): Promise<void> {
  await writeFile(`${ROOT}/etc/reach`, targets.map((target) => `${target}\n`).join(""));
}

/** Makes a bridge of the person's, with addresses in CIDR form. */
export async function makeBridge(name: string, addresses: readonly string[]): Promise<void> {
  await ip("link", "add", name, "type", "bridge");
  for (const address of addresses) await ip("addr", "add", address, "dev", name);
  await ip("link", "set", name, "up");
}

/** Address of a host beyond this one. */
export const BEYOND = "192.0.2.2";

/** Makes it: a web server in a network of its own, which knows no way back to guests. This host passes packets on to it. */
export async function makeBeyond(): Promise<void> {
  await writeFile("/proc/sys/net/ipv4/ip_forward", "1");
  await ip("netns", "add", "beyond");
  await ip("link", "add", "out", "type", "veth", "peer", "name", "in", "netns", "beyond");
  await ip("addr", "add", "192.0.2.1/24", "dev", "out");
  await ip("link", "set", "out", "up");
  await ip("-n", "beyond", "addr", "add", `${BEYOND}/24`, "dev", "in");
  await ip("-n", "beyond", "link", "set", "in", "up");
  await mkdir("/srv/www", { recursive: true });
  await mustRun("ip", ["netns", "exec", "beyond", "busybox", "httpd", "-p", "80", "-h", "/srv/www"]);
}

/** A service on the machine's loopback and on all of its addresses. */
export async function serveHost(port: number): Promise<void> {
  await mkdir("/srv/www", { recursive: true });
  await mustRun("busybox", ["httpd", "-p", `0.0.0.0:${port}`, "-h", "/srv/www"]);
}

async function ip(...args: string[]): Promise<void> {
  await mustRun("ip", args);
}

/** What VMs and exports make on a host: processes, interfaces, rules, files. Equal before and after when nothing is left. */
export async function hostState(): Promise<string[]> {
  const links = (await mustRun("ip", ["-o", "link"])).split("\n").map((line) => line.split(": ")[1] ?? "");
  const rules = (await mustRun("nft", ["list", "ruleset"])).split("\n");
  return [
    ...(await processes()).map((name) => `process ${name}`),
    ...links.filter((link) => link !== "").map((link) => `link ${link.split("@")[0]}`),
    ...rules.filter((rule) => rule.trim() !== "").map((rule) => `rule ${rule.trim()}`),
    ...(await filesBelow("/root")).map((path) => `file ${path}`),
    ...(await filesBelow("/run")).filter((path) => /microvm/.test(path)).map((path) => `file ${path}`),
    ...(await filesBelow("/tmp")).filter((path) => /microvm/.test(path)).map((path) => `file ${path}`),
  ].toSorted();
}

const OURS = /cloud-hypervisor|passt|ganesha\.nfsd|rpcbind|agentfs/;

async function processes(): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    // A process may end meanwhile.
    const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (OURS.test(commandLine)) found.push(`${pid} ${commandLine.replaceAll("\0", " ")}`);
  }
  return found;
}

/** Of a state directory's own, not a VM's: its host id, what it has read of kernels, leases given back within the hour. */
const KEPT = /\/host-id$|\/\.cache\/|\/leases\/\.retired\//;

/** What of a host's state is there now and was not before. */
export async function left(before: readonly string[]): Promise<string[]> {
  return (await hostState()).filter((thing) => !before.includes(thing) && !KEPT.test(thing));
}

async function filesBelow(folder: string): Promise<string[]> {
  const { stdout } = await runProcess("find", [folder, "-xdev", "!", "-type", "d"]);
  return stdout.split("\n").filter((path) => path !== "");
}

/** What a guest says over HTTP; undefined when it does not within 5 s. */
export async function ask(address: string, path = "/"): Promise<string | undefined> {
  try {
    const answer = await fetch(`http://${address}${path}`, { signal: AbortSignal.timeout(5000) });
    return await answer.text();
  } catch {
    return undefined; // Refused, unreachable or silent: all the same to the story.
  }
}

/** Asks until it is as wanted, for at most so many seconds; returns the last that was said. */
export async function until<T>(
  seconds: number,
  look: () => Promise<T>,
  isWanted: (seen: T) => boolean,
): Promise<T> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const seen = await look();
    if (isWanted(seen) || Date.now() > deadline) return seen;
    await delay(500);
  }
}
