/** VMs on this host that a server of ours runs, asked for by the client, and told as a local back end tells of its own: the contract through REST. */

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

import type {
  Backend,
  LocalVm,
  OnServer,
  ServerVm,
  ServerVmOutputs,
  VmOutputs,
  VmReference,
} from "../../../provider/backends/backend.js";
import { backendOf } from "../../../provider/backends/index.js";
import { vmPaths } from "../../../provider/host/paths.js";
import { isAlive } from "../../../provider/host/process.js";
import { readRecord } from "../../../provider/host/record.js";
import { type Running, serve } from "../../../provider/server/serve.js";
import type { StartVmRequest } from "../../../provider/server/wire.js";

export class Served {
  /** Instances as the server names them, by the request's. */
  readonly #named = new Map<string, string>();

  private constructor(
    readonly folder: string,
    readonly running: Running,
    readonly client: Backend<OnServer>,
  ) {}

  /** Starts a server on QEMU at a free loopback port, with its VMs in `state` of the folder. */
  static async open(folder: string): Promise<Served> {
    const config = join(folder, "config.yaml");
    const restserver = { state_dir: "./state", hypervisor: "qemu", ready_console: "^guest: ready" };
    await writeFile(config, JSON.stringify({ hostservices: { restserver } })); // JSON is YAML
    const given = { config, port: 0, allowedHosts: [], insecure: false, shutdownTimeoutSeconds: 1 };
    const running = await serve(given, { write: () => undefined });
    return new Served(folder, running, backendOf({ type: "arrakis", url: running.url }));
  }

  async close(): Promise<void> {
    await this.running.stop();
  }

  /** Folder of what the clients' hosts note. */
  get clients(): string {
    return join(this.folder, "clients");
  }

  get backend(): Backend {
    const { client } = this;
    return {
      observe: async (reference) =>
        await this.#told(reference.vmName, await client.observe(this.#theirs(reference))),
      create: async ({ boot, settings, ...request }) => {
        const { vmName, instance } = request;
        const stateDirectory = this.#clientOf(instance);
        await mkdir(stateDirectory, { recursive: true, mode: 0o700 });
        const made = await client.create({
          ...request,
          stateDirectory,
          ...asked(vmName, { boot, settings }),
        });
        if (made.instance !== undefined) this.#named.set(instance, made.instance);
        return await this.#told(vmName, made);
      },
      update: async ({ boot, settings, ...request }) => {
        const { vmName } = request.reference;
        const reference = this.#theirs(request.reference);
        const changed = { ...request, reference, ...asked(vmName, { boot, settings }) };
        return await this.#told(vmName, await client.update(changed));
      },
      remove: async (request) =>
        await client.remove({ ...request, reference: this.#theirs(request.reference) }),
      takeSnapshot: () => Promise.reject(new Error("the contract takes no snapshot")),
    };
  }

  /** A host of its own for each client: it is the server that gives a name to one of them. */
  #clientOf(instance: string): string {
    return join(this.clients, instance);
  }

  #theirs({ vmName, instance }: VmReference): VmReference {
    const stateDirectory = this.#clientOf(instance);
    return { vmName, instance: this.#named.get(instance) ?? instance, stateDirectory };
  }

  /** Beside what came through REST: where the server keeps the VM, as its record has it. */
  async #told(vmName: string, outputs: ServerVmOutputs): Promise<VmOutputs> {
    const { state, rootEvidence = "none", guestIp = "" } = outputs;
    if (rootEvidence === "unverified") throw new Error("a server of ours has seen the root of its guests");
    const stateDirectory = join(this.folder, "state");
    const { consoleLog } = vmPaths(stateDirectory, vmName);
    const told = { state, rootEvidence, guestIp, hostId: "", stateDirectory, consoleLog };
    if (state === "gone" || state === "damaged") return told;
    const vmm = (await readRecord(stateDirectory, vmName))?.vmm;
    return vmm !== undefined && isAlive(vmm) ? { ...told, pid: vmm.pid } : told;
  }
}

function asked(vmName: string, { boot, settings }: LocalVm): ServerVm {
  const { powerState, readiness, shutdownTimeoutSeconds } = settings;
  const start = { vmName, kernel: boot.kernel.path, ...rootOf(boot.root) };
  return { start, settings: { powerState, readiness, shutdownTimeoutSeconds }, isNameGenerated: true };
}

function rootOf(root: LocalVm["boot"]["root"]): StartVmRequest {
  if (root.type === "disk") return { useNfsRoot: false, rootfs: root.rootfs };
  const { hostServer, port, path, mountPort } = root;
  return { useNfsRoot: true, nfsServer: hostServer, nfsPort: port, nfsPath: path, nfsMountPort: mountPort };
}
