/** What the server tells Prometheus at /metrics. */

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { Vm } from "./wire.js";

const STATES = ["CREATING", "RUNNING", "PAUSED", "STOPPED", "DAMAGED", "UNREACHABLE", "REMOVING"];

export class Metrics {
  readonly #registry = new Registry();
  readonly #boots: Counter;
  readonly #failures: Counter<"code">;
  readonly #seconds: Histogram;
  #vms: (() => Promise<readonly Vm[]>) | undefined;

  constructor() {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    this.#boots = new Counter({
      name: "microvm_boots_total",
      help: "VMs that were made, their root proved",
      registers,
    });
    this.#failures = new Counter({
      name: "microvm_create_failures_total",
      help: "Requests for a VM that failed, by the code of the error",
      labelNames: ["code"],
      registers,
    });
    this.#seconds = new Histogram({
      name: "microvm_create_seconds",
      help: "Time from the request for a VM to the proof of its root",
      buckets: [0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120],
      registers,
    });
    const vms = new Gauge({
      name: "microvm_vms",
      help: "VMs that are there, by state",
      labelNames: ["state"],
      registers,
      collect: async () => {
        const states = ((await this.#vms?.()) ?? []).map(({ status }) => status);
        for (const state of new Set([...STATES, ...states])) {
          vms.set({ state: state.toLowerCase() }, states.filter((other) => other === state).length);
        }
      },
    });
  }

  /** @param vms All VMs, asked for when somebody asks for the metrics. */
  watch(vms: () => Promise<readonly Vm[]>): void {
    this.#vms = vms;
  }

  /** @param seconds From the request to the proof. */
  booted(seconds: number): void {
    this.#boots.inc();
    this.#seconds.observe(seconds);
  }

  /** @param code Code of the error. */
  failed(code: string): void {
    this.#failures.inc({ code });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  async text(): Promise<string> {
    return await this.#registry.metrics();
  }
}
