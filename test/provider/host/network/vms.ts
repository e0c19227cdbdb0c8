/** VMs that are attached, and guests that are played: a guest is a namespace at the other end of what stands in for its tap. */

import { randomBytes } from "node:crypto";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { onTestFinished } from "vitest";

import type { PortForward, TapLink } from "../../../../provider/boot/boot.js";
import { tapLink } from "../../../../provider/boot/tap-link.js";
import type { NetworkedVm } from "../../../../provider/host/network/index.js";
import type { Spec } from "../../../../provider/spec/spec.js";
import { temporaryFolder } from "../folders.js";
import { Namespace } from "./namespace.js";
import type { NetworkAnswer, NetworkOrder } from "./network-process.js";

export type TapVm = NetworkedVm & { readonly boot: NetworkedVm["boot"] & { readonly link: TapLink } };

/** What of a sample VM a test cares about. */
export interface VmChanges {
  readonly ip?: string;
  readonly network?: Spec["network"];
  readonly guestAccess?: Spec["guestAccess"];
  readonly portForwards?: readonly PortForward[];
  readonly vcpus?: number;
  /** NFS server as the guest sees it; by default the host. */
  readonly server?: string;
}

/** A VM with a record, so that it holds its leases. */
export async function sampleVm(
  stateDirectory: string,
  vmName: string,
  changes: VmChanges = {},
): Promise<TapVm> {
  const { ip = "static", network, guestAccess = "internet", portForwards = [], vcpus = 1 } = changes;
  const link = tapLink({ vmName, ip, network, guestAccess });
  const instance = randomBytes(8).toString("hex");
  await mkdir(join(stateDirectory, vmName), { recursive: true });
  await writeFile(join(stateDirectory, vmName, "vm.json"), JSON.stringify({ instance }));
  const server = changes.server ?? link.gatewayAddress;
  const root = { type: "nfs", server, hostServer: server, port: 2049, mountPort: 20048, path: "/" } as const;
  return { stateDirectory, vmName, instance, boot: { link, portForwards, vcpus, root } };
}

/** A process in a namespace that attaches and detaches; see network-process.ts. */
export class Attacher {
  private constructor(
    private readonly child: ReturnType<typeof start>,
    private readonly lines: AsyncIterator<string>,
  ) {}

  /** @param path More folders of programs, before those of PATH. */
  static async start(host: Namespace, runtime: string, path = ""): Promise<Attacher> {
    const child = start(host, runtime, path);
    onTestFinished(() => void child.kill("SIGKILL"));
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    await lines.next();
    return new Attacher(child, lines);
  }

  /** Gives orders, all at once; returns the answers, in any order. Fewer answers than orders when it was killed. */
  async orders(orders: readonly NetworkOrder[]): Promise<NetworkAnswer[]> {
    this.child.stdin.write(`${JSON.stringify(orders)}\n`);
    const answers: NetworkAnswer[] = [];
    while (answers.length < orders.length) {
      const line = await this.lines.next();
      if (line.done === true) break;
      answers.push(JSON.parse(line.value) as NetworkAnswer);
    }
    return answers;
  }

  /** @throws Error when the order fails. */
  async order(order: NetworkOrder): Promise<NetworkAnswer> {
    const [answer] = await this.orders([order]);
    if (answer?.code !== "ok") throw new Error(answer?.text ?? "the process has ended");
    return answer;
  }

  async attach(vm: NetworkedVm): Promise<string> {
    return (await this.order({ act: "attach", vm })).attachment?.tap ?? "";
  }

  async detach({ instance }: { readonly instance: string }): Promise<void> {
    await this.order({ act: "detach", instance });
  }

  async ended(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, "exit");
  }
}

function start(host: Namespace, runtime: string, path: string) {
  const script = join(__dirname, "network-process.ts");
  const [file, args] = host.command(process.execPath, "--import", "tsx", script);
  const env = { ...process.env, XDG_RUNTIME_DIR: runtime, PATH: `${path}:${process.env["PATH"]}` };
  return spawn(file, args, { stdio: ["pipe", "pipe", "inherit"], env });
}

/** A host of a test's own: its network, its folders, a process that attaches in it. */
export async function sampleHost() {
  const network = await Namespace.make();
  const [state, runtime] = [await temporaryFolder(), await temporaryFolder()];
  return { network, state, runtime, attacher: await Attacher.start(network, runtime) };
}

/** Plays the guest of an attached VM: a cable takes the place, the name and the port settings of its tap. */
export async function playGuest(host: Namespace, tap: string, link: TapLink): Promise<Namespace> {
  const guest = await Namespace.make();
  await host.sh(
    `ip link delete ${tap}; ip link add ${tap} type veth peer name eth0 netns ${guest.pid}; ` +
      `ip link set ${tap} master ${link.bridge}; ip link set ${tap} type bridge_slave isolated on; ip link set ${tap} up`,
  );
  await guest.sh(
    `ip link set eth0 address ${link.mac}; ip address add ${link.guestAddress}/${link.prefixLength} dev eth0; ` +
      `ip link set eth0 up; ip route add default via ${link.gatewayAddress}`,
  );
  return guest;
}
