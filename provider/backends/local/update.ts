/** Bringing an existing VM to what is asked for; also finishing or undoing what a crash left half-done. */

import type { BootConfiguration, PortForward } from "../../boot/boot.js";
import { MicroVmError } from "../../errors.js";
import { growDisk } from "../../host/disk.js";
import { keepLeases, takeLease } from "../../host/lease.js";
import { changeForwards as changeTapForwards } from "../../host/network/index.js";
import { vmPaths } from "../../host/paths.js";
import { type VmRecord, writeRecord } from "../../host/record.js";
import { sweepUnfinished } from "../../host/remove.js";
import { controlSocketPath } from "../../host/runtime-directory.js";
import { raiseFileSizeLimit } from "../../host/spawn.js";
import type { PowerState, UpdateRequest, VmOutputs } from "../backend.js";
import { outputsOf, ownRecord, unreachable } from "./observe.js";
import { changeForwards, leaseOf } from "./ports.js";
import { powerOff } from "./power.js";
import { findingAfterSnapshot } from "./snapshot.js";
import { attachedSocketOf, connectTo, endGuest, runsOf, vmmsOf } from "./runs.js";
import { fileSizeLimitMiB, proveVm, startVm } from "./start.js";
import type { Vmm, VmmControl } from "./vmm.js";
import type { Prover } from "./watch.js";

/**
 * Settings, stateful disk, port forwards, power state, in this order; each is recorded when it is done. A VM that died is
 * started again from the boot files that were copied in.
 *
 * @throws MicroVmError; what was done before is recorded, the rest is as it was, and the next update goes on.
 */
export async function updateVm(vmm: Vmm, prove: Prover, request: UpdateRequest): Promise<VmOutputs> {
  const found = await ownRecord(request.reference);
  if (found === undefined) throw notThere(request, "nothing of it is left");
  const update = new Update(vmm, prove, request, found.record);
  const state = await update.run();
  return outputsOf(found.place, update.record, state);
}

class Update {
  #record: VmRecord;

  constructor(
    readonly vmm: Vmm,
    readonly prove: Prover,
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
    await sweepUnfinished(this.#holder.stateDirectory, this.#record.vmName);
    await this.#undoHalfStart();
    const state = await this.#state();
    await this.#write({ ...this.#record, settings });
    await this.#growDisk(boot.statefulDiskMiB);
    await this.#resize(boot);
    await this.#forward(boot.portForwards);
    await this.#power(state, settings.powerState);
    return settings.powerState;
  }

  /** A VMM that was started and never recorded, or whose guest was never let run, is a start that did not happen. */
  async #undoHalfStart(): Promise<void> {
    const { phase } = this.#record;
    if (phase !== "prepared" && phase !== "spawned") return;
    await endGuest(this.vmm, this.#record);
    await this.#write({ ...this.#record, phase: "prepared", vmm: undefined, proved: false });
  }

  /** What is there to begin with; of a VMM that does not answer nothing is needed but its end. */
  async #state(): Promise<PowerState> {
    const { request } = this;
    const found = await findingAfterSnapshot(this.vmm, this.#holder.stateDirectory, this.#record);
    if (found === "damaged") {
      throw notThere(request, "a disk or a boot file of it is missing, so that it cannot be started");
    }
    if (found !== "unreachable") return found;
    if (request.settings.powerState === "stopped") return "running";
    throw unreachable(this.#record);
  }

  get #holder() {
    const { vmName, instance } = this.#record;
    return { stateDirectory: this.request.reference.stateDirectory, vmName, instance };
  }

  async #growDisk(sizeMiB: number): Promise<void> {
    const { boot, vmName } = this.#record;
    if (sizeMiB === boot.statefulDiskMiB) return;
    await growDisk(vmPaths(this.request.reference.stateDirectory, vmName).statefulDisk, sizeMiB);
    await this.#controlled("to grow its disk", async (control) => {
      const [identity] = vmmsOf(this.#record);
      const limitMiB = fileSizeLimitMiB({ ...boot, statefulDiskMiB: sizeMiB });
      if (identity !== undefined) await raiseFileSizeLimit(identity, limitMiB);
      await control.resizeDisk(boot.disks.length - 1, sizeMiB * 1024 * 1024);
    });
    await this.#write({ ...this.#record, boot: { ...boot, statefulDiskMiB: sizeMiB } });
  }

  /** What is asked of a running VM; one that is off starts with it. */
  async #resize({ vcpus, memoryMiB, disks }: BootConfiguration): Promise<void> {
    const { boot, requested } = this.#record;
    if (vcpus === boot.vcpus && memoryMiB === boot.memoryMiB) return;
    const isAsked = await this.#controlled("to resize it", (control) =>
      control.resizeVm({ vcpus, memoryMiB }),
    );
    const more = {
      ...requested,
      ...(vcpus === boot.vcpus ? {} : { vcpus }),
      ...(memoryMiB === boot.memoryMiB ? {} : { memoryMiB }),
    };
    await this.#write({
      ...this.#record,
      boot: { ...boot, vcpus, memoryMiB, disks },
      requested: isAsked ? more : undefined,
    });
  }

  async #forward(wanted: readonly PortForward[]): Promise<void> {
    const { boot, instance } = this.#record;
    const now = boot.portForwards;
    const onChange = async (portForwards: readonly PortForward[]): Promise<void> =>
      await this.#write({ ...this.#record, boot: { ...this.#record.boot, portForwards } });
    const change = async (control?: VmmControl): Promise<void> =>
      await changeForwards({ now, wanted, link: boot.link }, this.#holder, control, onChange);
    if (boot.link.kind === "tap") {
      await this.#forwardOnTap(wanted);
    } else if (JSON.stringify(now) !== JSON.stringify(wanted)) {
      if (!(await this.#controlled("to change its port forwards", change))) await change();
    }
    // An earlier update may have been killed between the lease of a port and the record of it.
    await keepLeases(instance, wanted.map(leaseOf));
  }

  /** All at once, also of a VM that is off: its rules stand until it is removed. */
  async #forwardOnTap(wanted: readonly PortForward[]): Promise<void> {
    const { boot } = this.#record;
    if (JSON.stringify(boot.portForwards) === JSON.stringify(wanted)) return;
    for (const forward of wanted) await takeLease(leaseOf(forward), this.#holder);
    const changed = { ...boot, portForwards: wanted };
    await changeTapForwards({ ...this.#holder, boot: changed });
    await this.#write({ ...this.#record, boot: changed });
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
    await endGuest(this.vmm, this.#record); // a VMM whose guest is off
    // After a reboot the folder of sockets and leases is a new one.
    const controlSocket = await controlSocketPath(this.#record.instance);
    for (const forward of this.#record.boot.portForwards) await takeLease(leaseOf(forward), this.#holder);
    await this.#write({ ...this.#record, controlSocket, phase: "prepared", vmm: undefined, proved: false });
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
    const { vmm, prove, request } = this;
    const { settings } = request;
    const program = attachedSocketOf(settings) === undefined ? await vmm.find(settings) : undefined;
    return { vmm, prove, program, stateDirectory: request.reference.stateDirectory, work: request };
  }

  async #stop(): Promise<void> {
    const { shutdownTimeoutSeconds } = this.request.settings;
    const { consoleLog } = vmPaths(this.#holder.stateDirectory, this.#record.vmName);
    await powerOff(this.vmm, this.#record, { shutdownTimeoutSeconds, consoleLog }, this.request);
    await this.#write({ ...this.#record, phase: "ready", vmm: undefined, proved: false });
  }

  /** Does something by the VMM's control socket. @returns false when no VMM runs. */
  async #controlled(why: string, act: (control: VmmControl) => Promise<void>): Promise<boolean> {
    const record = this.#record;
    if ((await runsOf(this.vmm, record)).length === 0) return false;
    let control;
    try {
      control = await connectTo(this.vmm, record);
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
