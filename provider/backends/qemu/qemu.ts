/** QEMU as the hypervisor of a local VM. */

import { join } from "node:path";

import type { GuestLink, PortForward } from "../../boot/boot.js";
import { MicroVmError } from "../../errors.js";
import { qemuHost } from "../../preflight/host.js";
import type { VmSettings } from "../backend.js";
import type { GuestState, Launch, Vmm, VmmControl, VmmProgram } from "../local/vmm.js";
import { diskNode, forwardName, forwardRule, NETWORK_ID, qemuArguments } from "./arguments.js";
import { QmpClient } from "./qmp.js";
import { relayEnvironment } from "./relay.js";

export const qemu: Vmm = {
  name: "QEMU",
  restartsGuest: false,

  async find({ backend }: VmSettings): Promise<VmmProgram> {
    if (backend.type !== "qemu") throw new Error(`not a qemu back end: ${backend.type}`);
    const { program, accelerator } = await qemuHost(backend);
    const { machine } = backend;
    return {
      file: program.path,
      accelerator,
      environmentFor: ({ paths }: Launch) =>
        relayEnvironment(process.execPath, join(paths.directory, "relays")),
      argumentsFor: ({ boot, vmName, instance, paths }: Launch) =>
        qemuArguments(boot, {
          vmName,
          instance,
          paths,
          machine,
          accelerator,
          sandbox: program.sandbox,
        }),
    };
  },

  async connect(controlSocket: string): Promise<VmmControl> {
    return new QemuControl(await QmpClient.connect(controlSocket));
  },
};

class QemuControl implements VmmControl {
  constructor(readonly qmp: QmpClient) {}

  async guestState(): Promise<GuestState> {
    return guestStateOf(await this.qmp.status());
  }

  async boot(): Promise<void> {
    await this.qmp.cont();
  }

  async resume(): Promise<void> {
    await this.qmp.cont();
  }

  async pause(): Promise<void> {
    await this.qmp.stop();
  }

  async pressPowerButton(): Promise<void> {
    await this.qmp.systemPowerdown();
  }

  async quit(): Promise<void> {
    await this.qmp.quit();
  }

  async addPortForward(forward: PortForward, link: GuestLink): Promise<void> {
    const rule = forwardRule(forward, link);
    const said = (await this.qmp.humanMonitorCommand(`hostfwd_add ${NETWORK_ID} ${rule}`)).trim();
    // The human monitor is silent on success.
    if (said !== "")
      throw new MicroVmError("vmm-failed", `QEMU did not add the port forward ${rule}: ${said}`);
  }

  async removePortForward(forward: PortForward): Promise<void> {
    const name = forwardName(forward);
    const said = (await this.qmp.humanMonitorCommand(`hostfwd_remove ${NETWORK_ID} ${name}`)).trim();
    if (/ (?:removed|not found)$/.test(said)) return;
    throw new MicroVmError("vmm-failed", `QEMU did not remove the port forward ${name}: ${said}`);
  }

  async resizeDisk(index: number, bytes: number): Promise<void> {
    await this.qmp.blockResize(diskNode(index), bytes);
  }

  async resizeVm(): Promise<void> {
    throw new Error("the plan replaces a QEMU VM whose size changes");
  }

  close(): void {
    this.qmp.close();
  }
}

/** QEMU's RunState (qapi/run-state.json) in our words. */
function guestStateOf(status: string): GuestState {
  switch (status) {
    case "running":
    case "suspended":
      return "running";
    case "prelaunch":
      return "unbooted";
    case "shutdown":
    case "guest-panicked":
    case "internal-error":
      return "ended";
    default: // paused; io-error (the host's disk was full), debug, …: `cont` lets them go on
      return "paused";
  }
}
