/** A Cloud Hypervisor that somebody else keeps running, as a service manager does: it is started again whenever it has ended. */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { CloudHypervisorApi } from "../../../../provider/backends/cloud-hypervisor/api.js";
import type { TheirVmm } from "../contract.js";

const POLL_MILLISECONDS = 5;
const POLLS = 2000;

export class Service implements TheirVmm {
  readonly folder = mkdtempSync(join(tmpdir(), "their-vmm-"));
  readonly apiSocket = join(this.folder, "api.sock");
  readonly network = { tap: "theirs0", subnet: "10.77.0.1/24" };
  #process: ChildProcess | undefined;
  #isWanted = false;

  constructor(readonly binary: string) {}

  /** Makes its network as well, as its owner would. */
  async open(): Promise<void> {
    const { tap, subnet } = this.network;
    this.makeTap(tap, subnet);
    this.start();
    await this.untilUp();
  }

  /** One that goes with the network namespace. */
  makeTap(tap: string, subnet: string): { tap: string; bridge: string; gatewayAddress: string } {
    execFileSync("ip", ["tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr"]);
    execFileSync("ip", ["address", "add", subnet, "dev", tap]);
    execFileSync("ip", ["link", "set", "dev", tap, "up"]);
    return { tap, bridge: tap, gatewayAddress: subnet.replace(/\/.*/, "") };
  }

  async close(): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  start(): void {
    this.#isWanted = true;
    rmSync(this.apiSocket, { force: true });
    const started = spawn(this.binary, ["--api-socket", `path=${this.apiSocket}`], { stdio: "ignore" });
    this.#process = started;
    started.once("exit", () => this.#isWanted && this.#process === started && this.start());
  }

  async stop(): Promise<void> {
    this.#isWanted = false;
    const running = this.#process;
    if (running === undefined || running.exitCode !== null || running.signalCode !== null) return;
    const ended = once(running, "exit");
    running.kill("SIGKILL");
    await ended;
  }

  readonly untilUp = async (): Promise<void> => {
    for (let polls = 0; ; polls += 1) {
      try {
        (await CloudHypervisorApi.connect(this.apiSocket)).close();
        return;
      } catch (error) {
        if (polls >= POLLS) throw error;
        await delay(POLL_MILLISECONDS);
      }
    }
  };
}
