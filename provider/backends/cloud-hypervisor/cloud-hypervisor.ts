/** Cloud Hypervisor as the hypervisor of a local VM. */

import { MicroVmError } from "../../errors.js";
import { isThere } from "../../host/storage.js";
import { noticeText } from "../../notices.js";
import { cloudHypervisorHost } from "../../preflight/cloud-hypervisor.js";
import type { VmSettings, Work } from "../backend.js";
import { instanceOfVsock } from "../../host/runtime-directory.js";
import type {
  AttachedControl,
  GuestState,
  Launch,
  Vmm,
  VmmControl,
  VmmProgram,
  VmSize,
} from "../local/vmm.js";
import { CloudHypervisorApi } from "./api.js";
import { diskId, resizeOf, vmConfig } from "./config.js";
import type { VmInfoBody } from "./schemas.js";
import { snapshots } from "./snapshot.js";

export const cloudHypervisor: Vmm = {
  name: "Cloud Hypervisor",
  restartsGuest: true,
  snapshots,

  async find({ backend }: VmSettings): Promise<VmmProgram> {
    if (backend.type !== "cloud-hypervisor")
      throw new Error(`not a cloud-hypervisor back end: ${backend.type}`);
    return programOf((await cloudHypervisorHost(backend)).path);
  },

  async connect(controlSocket: string): Promise<VmmControl> {
    return new CloudHypervisorControl(await CloudHypervisorApi.connect(controlSocket));
  },

  async attach(socket: string): Promise<AttachedControl> {
    return new AttachedCloudHypervisor(await CloudHypervisorApi.connect(socket));
  },
};

/** How a Cloud Hypervisor program is run: it does nothing but listen until {@link VmmControl.boot}. */
export function programOf(file: string): VmmProgram {
  return {
    file,
    accelerator: "kvm",
    argumentsFor: ({ paths }: Launch) => [
      "--api-socket",
      `path=${paths.controlSocket}`,
      // Its path is what tells whose process it is, should the record be lost.
      "--event-monitor",
      `path=${paths.events}`,
      "--seccomp",
      "true",
    ],
  };
}

class CloudHypervisorControl implements VmmControl {
  constructor(readonly api: CloudHypervisorApi) {}

  async guestState(): Promise<GuestState> {
    return guestStateOf(await this.api.info());
  }

  async prepare(launch: Launch, { notice }: Work): Promise<void> {
    try {
      await this.api.create(vmConfig(launch, true));
    } catch (error) {
      // A kernel without Landlock, or older than 6.2: it says so at once, and has made nothing.
      if (!(error instanceof MicroVmError && /landlock/i.test(error.text))) throw error;
      notice(noticeText("no-landlock", { vm: launch.vmName }));
      await this.api.delete();
      await this.api.create(vmConfig(launch, false));
    }
  }

  async boot(): Promise<void> {
    await this.api.boot();
  }

  async resume(): Promise<void> {
    if ((await this.guestState()) === "paused") await this.api.resume();
  }

  async pause(): Promise<void> {
    if ((await this.guestState()) !== "paused") await this.api.pause();
  }

  async pressPowerButton(): Promise<void> {
    await this.api.pressPowerButton();
  }

  async quit(): Promise<void> {
    await this.api.shutdownVmm();
  }

  async addPortForward(): Promise<void> {
    throw new Error("the port forwards of a tap are the host's");
  }

  async removePortForward(): Promise<void> {
    throw new Error("the port forwards of a tap are the host's");
  }

  async resizeDisk(index: number, bytes: number): Promise<void> {
    await this.api.resizeDisk(diskId(index), bytes);
  }

  async resizeVm(size: VmSize): Promise<void> {
    await this.api.resize(resizeOf(size));
  }

  close(): void {
    this.api.close();
  }
}

/** One that somebody else has started: it goes on after its VM, and is to take the next as if there had been none. */
class AttachedCloudHypervisor extends CloudHypervisorControl implements AttachedControl {
  async holder(): Promise<"nobody" | { readonly instance?: string }> {
    const info = await this.api.info();
    if (info === undefined) return "nobody";
    const instance = instanceOfVsock(info.config.vsock?.socket ?? "");
    return instance === undefined ? {} : { instance };
  }

  /** Without Landlock: what a process gives up by it, it never has again. */
  override async prepare(launch: Launch): Promise<void> {
    const { directory, consoleLog } = launch.paths;
    try {
      await this.api.create(vmConfig(launch, false));
    } catch (error) {
      if (!(error instanceof MicroVmError)) throw error;
      throw new MicroVmError(error.code, `${error.text}. ${needs(directory)}`, { cause: error });
    }
    // It has opened the console by now.
    if (!(await isThere(consoleLog))) {
      await this.api.delete();
      throw new MicroVmError(
        "host-unusable",
        `the VMM has taken the VM, but writes its console elsewhere than this host's ${consoleLog}. ${needs(directory)}`,
        { input: "backend.apiSocket" },
      );
    }
  }

  override async quit(): Promise<void> {
    const state = await this.guestState();
    if (state === "running" || state === "paused") await this.api.shutdown();
    await this.api.delete();
  }
}

function needs(directory: string): string {
  return `The VMM at backend.apiSocket must run on this host, see the files of ${directory}, and may read and write them (as the same user, or as root)`;
}

/** `Created`: never booted, or ended by a reset that it could not recover from; either way it is to be started anew. */
function guestStateOf(info: VmInfoBody | undefined): GuestState {
  if (info === undefined) return "unbooted";
  switch (info.state) {
    case "Created":
      return "unbooted";
    case "Running":
      return "running";
    case "Paused":
    case "BreakPoint":
      return "paused";
    case "Shutdown":
      return "ended";
    default:
      return info.state satisfies never;
  }
}
