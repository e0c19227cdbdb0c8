/** Cloud Hypervisor's API, as far as we use it. Every method throws MicroVmError `vmm-failed` with its own words. */

import { z } from "zod";

import type { MicroVmError } from "../../errors.js";
import { HttpClient, HttpStatusError } from "../http.js";
import {
  VmConfig,
  type VmConfigBody,
  VmInfo,
  type VmInfoBody,
  VmmPingResponse,
  VmResize,
  type VmResizeBody,
  VmResizeDisk,
} from "./schemas.js";
import { assertVersion } from "./version.js";

const ROOT = "/api/v1";

/** What answers at once, in seconds. */
const SOON = 5;
/** What makes or ends a guest: its memory is mapped or given back. */
const LATER = 60;

/** One connection to a running VMM. */
export class CloudHypervisorApi {
  private constructor(readonly http: HttpClient) {}

  /**
   * Connects, and asks which version answers.
   *
   * @param socketPath Absolute path of the API socket.
   * @throws MicroVmError `vmm-failed` when nobody answers (its `cause` is the system's error); `host-unusable` for a version that is too old.
   */
  static async connect(socketPath: string): Promise<CloudHypervisorApi> {
    const place = { server: "Cloud Hypervisor", socketPath, origin: "http://localhost" };
    const api = new CloudHypervisorApi(await HttpClient.open(place));
    try {
      assertVersion((await api.ping()).version, `Cloud Hypervisor at ${socketPath}`);
      return api;
    } catch (error) {
      api.close();
      throw error;
    }
  }

  async ping(): Promise<z.infer<typeof VmmPingResponse>> {
    return await this.#get("vmm.ping", VmmPingResponse);
  }

  /** The VM of this VMM; undefined before it is created. */
  async info(): Promise<VmInfoBody | undefined> {
    try {
      return await this.#get("vm.info", VmInfo);
    } catch (error) {
      const { cause } = error as MicroVmError;
      if (cause instanceof HttpStatusError && cause.status === 404) return undefined;
      throw error;
    }
  }

  /** Takes the configuration of the VM; its guest does not run yet. */
  async create(config: VmConfigBody): Promise<void> {
    await this.#put("vm.create", LATER, VmConfig.parse(config));
  }

  /** Gives up the VM that was created. */
  async delete(): Promise<void> {
    await this.#put("vm.delete", LATER);
  }

  /** Lets the guest run for the first time. */
  async boot(): Promise<void> {
    await this.#put("vm.boot", LATER);
  }

  async pause(): Promise<void> {
    await this.#put("vm.pause", SOON);
  }

  async resume(): Promise<void> {
    await this.#put("vm.resume", SOON);
  }

  async pressPowerButton(): Promise<void> {
    await this.#put("vm.power-button", SOON);
  }

  async resize(resize: VmResizeBody): Promise<void> {
    await this.#put("vm.resize", LATER, VmResize.parse(resize));
  }

  /** @param bytes New size of the disk's image. */
  async resizeDisk(id: string, bytes: number): Promise<void> {
    await this.#put("vm.resize-disk", SOON, VmResizeDisk.parse({ id, desired_size: bytes }));
  }

  /** Ends the guest at once; its configuration stays until {@link delete}. */
  async shutdown(): Promise<void> {
    await this.#put("vm.shutdown", LATER);
  }

  /** Shuts the VM down, deletes it and ends the VMM. */
  async shutdownVmm(): Promise<void> {
    await this.#put("vmm.shutdown", LATER);
  }

  close(): void {
    this.http.close();
  }

  async #get<T>(name: string, answer: z.ZodType<T>): Promise<T> {
    return await this.http.send({ method: "GET", path: `${ROOT}/${name}`, answer, timeoutSeconds: SOON });
  }

  async #put(name: string, timeoutSeconds: number, body?: unknown): Promise<void> {
    await this.http.send({
      method: "PUT",
      path: `${ROOT}/${name}`,
      body,
      answer: z.undefined(),
      timeoutSeconds,
    });
  }
}
