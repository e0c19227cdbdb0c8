/** Bringing an existing VM to what is asked for; also finishing or undoing what a crash left half-done. */

import type { PortForward } from "../../boot/boot.js";
import { MicroVmError } from "../../errors.js";
import { growDisk } from "../../host/disk.js";
import { vmPaths } from "../../host/paths.js";
import { type VmRecord, writeRecord } from "../../host/record.js";
import { raiseFileSizeLimit } from "../../host/spawn.js";
import type { ObservedState, PowerState, UpdateRequest, VmOutputs } from "../backend.js";
import { observedState, outputsOf, ownRecord } from "./observe.js";
import { changeForwards } from "./ports.js";
import { powerOff } from "./power.js";
import { endVmm, fileSizeLimitMiB, proveVm, startVm, vmmsOf } from "./start.js";
import type { Vmm, VmmControl } from "./vmm.js";

/**
 * Settings, stateful disk, port forwards, power state, in this order; each is recorded when it is done. A VM that died is
 * started again from the boot files that were copied in.
 *
 * @throws MicroVmError; what was done before is recorded, the rest is as it was, and the next update goes on.
 */
export async function updateVm(vmm: Vmm, request: UpdateRequest): Promise<VmOutputs> {
  const found = await ownRecord(request.reference);
  if (found === undefined) throw notThere(request, "nothing of it is left");
  const update = new Update(vmm, request, found.record);
  const state = await update.run();
  return outputsOf(found.place, update.record, state);
}

class Update {
  #record: VmRecord;

  constructor(
    readonly vmm: Vmm,
    readonly request: UpdateRequest,
    record: VmRecord,
  ) {
    this.#record = record;
  }

  get record(): VmRecord {
    return this.#record;
  }

  async run(): Promise<PowerState> {
    const { boot, settings } = this.request;
    await this.#undoHalfStart();
    const state = await this.#observe();
    if (state === "damaged" || state === "gone") {
      throw notThere(this.request, "a disk or a boot file of it is missing, so that it cannot be started");
    }
    await this.#write({ ...this.#record, settings });
    await this.#growDisk(boot.statefulDiskMiB);
    await this.#forward(boot.portForwards);
    await this.#power(state, settings.powerState);
    return settings.powerState;
  }

  /** A VMM that was started and never recorded, or whose guest was never let run, is a start that did not happen. */
  async #undoHalfStart(): Promise<void> {
    const { phase } = this.#record;
    if (phase !== "prepared" && phase !== "spawned") return;
    await endVmm(this.#record);
    await this.#write({ ...this.#record, phase: "prepared", vmm: undefined, proved: false });
  }

  async #growDisk(sizeMiB: number): Promise<void> {
    const { boot, vmName } = this.#record;
    if (sizeMiB === boot.statefulDiskMiB) return;
    await growDisk(vmPaths(this.request.reference.stateDirectory, vmName).statefulDisk, sizeMiB);
    await this.#controlled("to grow its disk", async (control) => {
      const [identity] = vmmsOf(this.#record);
      if (identity !== undefined) await raiseFileSizeLimit(identity, fileSizeLimitMiB(sizeMiB));
      await control.resizeDisk(boot.disks.length - 1, sizeMiB * 1024 * 1024);
    });
    await this.#write({ ...this.#record, boot: { ...boot, statefulDiskMiB: sizeMiB } });
  }

  async #forward(wanted: readonly PortForward[]): Promise<void> {
    const { boot, vmName, instance } = this.#record;
    const now = boot.portForwards;
    if (JSON.stringify(now) === JSON.stringify(wanted)) return;
    const holder = { stateDirectory: this.request.reference.stateDirectory, vmName, instance };
    const onChange = async (portForwards: readonly PortForward[]): Promise<void> =>
      await this.#write({ ...this.#record, boot: { ...this.#record.boot, portForwards } });
    const change = async (control?: VmmControl): Promise<void> =>
      await changeForwards({ now, wanted }, holder, control, onChange);
    if (!(await this.#controlled("to change its port forwards", change))) await change();
  }

  async #power(now: PowerState, wanted: PowerState): Promise<void> {
    if (wanted === "stopped") return await this.#stop();
    if (now === "stopped") await this.#start();
    else if (!this.#record.proved) await this.#prove();
    const isPaused = now === "paused" && this.#record.proved;
    if (wanted === "paused" && !isPaused) await this.#controlled("to pause it", (control) => control.pause());
    if (wanted === "running" && isPaused)
      await this.#controlled("to resume it", (control) => control.resume());
  }

  async #start(): Promise<void> {
    await endVmm(this.#record); // a VMM whose guest is off
    await this.#write({ ...this.#record, phase: "prepared", vmm: undefined, proved: false });
    try {
      this.#record = await startVm(await this.#place(), this.#record);
    } catch (error) {
      await this.#write({ ...this.#record, phase: "ready", vmm: undefined, proved: false });
      throw error;
    }
  }

  /** The engine of an earlier start ended during its wait. */
  async #prove(): Promise<void> {
    await this.#controlled("to resume it", (control) => control.resume());
    this.#record = await proveVm(await this.#place(), this.#record);
  }

  async #place() {
    const { vmm, request } = this;
    const program = await vmm.find(request.settings);
    return { vmm, program, stateDirectory: request.reference.stateDirectory, work: request };
  }

  async #stop(): Promise<void> {
    await powerOff(this.vmm, this.#record, this.request.settings.shutdownTimeoutSeconds, this.request);
    await this.#write({ ...this.#record, phase: "ready", vmm: undefined, proved: false });
  }

  /** Does something by the VMM's control socket. @returns false when no VMM runs. */
  async #controlled(why: string, act: (control: VmmControl) => Promise<void>): Promise<boolean> {
    const record = this.#record;
    if (vmmsOf(record).length === 0) return false;
    let control;
    try {
      control = await this.vmm.connect(record.controlSocket, record.boot);
    } catch (error) {
      if (!(error instanceof MicroVmError)) throw error;
      throw new MicroVmError(
        "vmm-failed",
        `${record.vmName} runs but cannot be reached ${why}: ${error.message}. Set powerState to "stopped" and then to "running", which ends and starts it again`,
        { cause: error },
      );
    }
    try {
      await act(control);
    } finally {
      control.close();
    }
    return true;
  }

  async #observe(): Promise<ObservedState> {
    return await observedState(this.vmm, this.request.reference.stateDirectory, this.#record);
  }

  async #write(record: VmRecord): Promise<void> {
    await writeRecord(this.request.reference.stateDirectory, record);
    this.#record = record;
  }
}

function notThere({ reference }: UpdateRequest, why: string): MicroVmError {
  return new MicroVmError(
    "vmm-failed",
    `${reference.vmName} cannot be updated: ${why}. Run pulumi up --replace with its URN to make it anew`,
  );
}
