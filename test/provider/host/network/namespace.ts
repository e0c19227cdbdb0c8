/** Network namespaces of a test's own: real interfaces, rules and traffic that never leave them. */

import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { promisify } from "node:util";

import { onTestFinished } from "vitest";

const run = promisify(execFile);

/** Whether this user may make network namespaces, and the programs are there. */
export const mayUseNamespaces = canUseNamespaces();

function canUseNamespaces(): boolean {
  try {
    execFileSync("unshare", ["--net", "sh", "-c", "ip link set lo up && nft list ruleset"], {
      stdio: "ignore",
    });
    return true;
  } catch {
    return false; // no right to make one, or no iproute2 or nftables
  }
}

/** A network of its own, gone after the test. */
export class Namespace {
  private constructor(
    readonly pid: number,
    private readonly prefix: readonly string[] = [],
  ) {}

  static async make(): Promise<Namespace> {
    const holder = spawn("unshare", ["--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    onTestFinished(async () => {
      if (holder.exitCode !== null) return;
      holder.stdin.end();
      await once(holder, "exit");
    });
    await once(holder.stdout, "data");
    return new Namespace(holder.pid ?? 0);
  }

  /** The command line that runs a program in it. */
  command(...command: readonly string[]): [string, string[]] {
    return ["nsenter", [`--net=/proc/${this.pid}/ns/net`, "--", ...this.prefix, ...command]];
  }

  /** The same, for programs without a capability (capabilities(7), in lower case and without `cap_`). */
  without(capability: string): Namespace {
    return new Namespace(this.pid, [
      "setpriv",
      "--bounding-set",
      `-${capability}`,
      "--inh-caps",
      `-${capability}`,
    ]);
  }

  /** Runs a shell script in it; returns what it prints. */
  async sh(script: string): Promise<string> {
    return (await run(...this.command("sh", "-ec", script))).stdout;
  }

  /** Everything that could be left behind: names of interfaces, and the whole ruleset with its handles. */
  async inventory(): Promise<{ interfaces: string[]; rules: string }> {
    const links = JSON.parse(await this.sh("ip -json link show")) as { ifname: string }[];
    const rules = await this.sh("nft -a list ruleset");
    return { interfaces: links.map(({ ifname }) => ifname).toSorted(), rules };
  }

  /** A server that says a word, and the address of who asks, to each TCP connection; ends with the test. */
  async serve(address: string, port: number, word: string): Promise<void> {
    const script = `require("node:net").createServer((s) => s.on("error", () => {}).end(${JSON.stringify(word)} + " " + s.remoteAddress)).listen(${port}, ${JSON.stringify(address)}, () => console.log("up"))`;
    const server = spawn(...this.command(process.execPath, "-e", script), {
      stdio: ["ignore", "pipe", "inherit"],
    });
    onTestFinished(() => void server.kill("SIGKILL"));
    await once(server.stdout, "data");
  }

  /** What a TCP server says, or the error code; `silence` when nothing comes within a second. */
  async ask(address: string, port: number): Promise<string> {
    const script = `const s = require("node:net").connect(${port}, ${JSON.stringify(address)}); let t = ""; s.setTimeout(1000, () => { console.log("silence"); process.exit(); }).on("data", (d) => (t += d)).on("end", () => console.log(t)).on("error", (e) => console.log(e.code))`;
    return (await run(...this.command(process.execPath, "-e", script))).stdout.trim();
  }

  /** A server that sends each UDP datagram back behind a word; ends with the test. */
  async serveDatagrams(port: number, word: string): Promise<void> {
    const script = `const s = require("node:dgram").createSocket("udp4"); s.on("message", (m, from) => s.send(${JSON.stringify(word)} + " " + m, from.port, from.address)).bind(${port}, () => console.log("up"))`;
    const server = spawn(...this.command(process.execPath, "-e", script), {
      stdio: ["ignore", "pipe", "inherit"],
    });
    onTestFinished(() => void server.kill("SIGKILL"));
    await once(server.stdout, "data");
  }

  /** What comes back for a UDP datagram; `silence` when nothing does within a second. */
  async askDatagram(address: string, port: number, text: string): Promise<string> {
    const script = `const s = require("node:dgram").createSocket("udp4"); const end = (t) => { console.log(t); process.exit(); }; setTimeout(end, 1000, "silence"); s.on("message", (m) => end(String(m))).on("error", (e) => end(e.code)).connect(${port}, ${JSON.stringify(address)}, () => s.send(${JSON.stringify(text)}))`;
    return (await run(...this.command(process.execPath, "-e", script))).stdout.trim();
  }

  /** Joins two by a cable, each end with an address in CIDR form. */
  async cable(name: string, address: string, other: Namespace, otherAddress: string): Promise<void> {
    await this.sh(
      `ip link add ${name} type veth peer name eth0 netns ${other.pid}; ip address add ${address} dev ${name}; ip link set ${name} up`,
    );
    await other.sh(`ip address add ${otherAddress} dev eth0; ip link set eth0 up`);
  }
}
