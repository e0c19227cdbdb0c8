/**
 * SIGKILL of the REST server at any instant while callers make, stop, start and delete VMs; the next server must have lost none, doubled
 * none, and left no lease or process behind. MICROVM_FAULTS: how often; MICROVM_FAULTS_SEED: repeats a run's choices.
 */

import { randomInt } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { messageOf } from "../../provider/errors.js";
import { findByArgument } from "../../provider/host/process.js";
import { isOnPath } from "../lab/programs.js";
import { type Answer, call, ServerBed } from "../provider/server/bed.js";
import { randomFrom } from "./random.js";
import { ServerChild } from "./server-child.js";

const kills = Number(process.env["MICROVM_FAULTS"] ?? 5);
const seed = Number(process.env["MICROVM_FAULTS_SEED"] ?? randomInt(1_000_000));
const missing = isOnPath("qemu-system-x86_64") ? "" : " (skipped: qemu-system-x86_64 is not installed)";

/** A VM as the server shows it. */
interface Shown {
  readonly vmName: string;
  readonly status: string;
  readonly instance: string;
  readonly rootEvidence: string;
  readonly portForwards: readonly { readonly hostPort: string }[];
}

/** What a VM may be now: what its callers were told, and what they asked for without having been told. */
interface Allowed {
  /** `"any"` for one that nobody was told of. */
  readonly instance: string | undefined;
  readonly statuses: readonly string[];
}

const ABSENT: Allowed = { instance: undefined, statuses: ["ABSENT"] };
const CALLERS = 3;
const LONGEST_LOAD_MILLISECONDS = 2500;

describe.skipIf(missing !== "")(`a server that is killed (${kills} times, seed ${seed})${missing}`, () => {
  const random = randomFrom(seed);
  const allowed = new Map<string, Allowed>();
  /** What callers were told that is no sign of a killed server. */
  const refused: string[] = [];
  let asked = 0;
  let answered = 0;
  let bed: ServerBed;
  let server: ServerChild;
  let log: string[] = [];

  const start = async (): Promise<ServerChild> => {
    log = [];
    const args = ["--config", bed.config, "--port", "0", "--shutdown-timeout", "0"];
    return await ServerChild.start(args, (line) => log.push(line));
  };
  beforeAll(async () => {
    bed = await ServerBed.open();
    await bed.configure();
    server = await start();
  });
  afterAll(async () => {
    await server.end("SIGTERM");
    await bed.close();
  });

  /** One caller, with two VMs of its own, until its server is gone. */
  async function load(caller: number, mayGoOn: () => boolean): Promise<void> {
    const names = [`vm-${caller}-a`, `vm-${caller}-b`];
    while (mayGoOn()) {
      const vmName = names[Math.floor(random() * names.length)] ?? "vm";
      const before = allowed.get(vmName) ?? ABSENT;
      try {
        await step(vmName, before);
        answered += 1;
      } catch (error) {
        if (!/ECONNRE|socket hang up|aborted/.test(messageOf(error))) refused.push(messageOf(error));
        return;
      }
    }
  }

  /** Asks for one thing; until the answer is there, it may be done or not. */
  async function step(vmName: string, before: Allowed): Promise<void> {
    const path = `/v1/vms/${vmName}`;
    const ask = async (method: string, to: string, during: Allowed, body?: object): Promise<Answer> => {
      allowed.set(vmName, during);
      asked += 1;
      const answer = await call(server.url, method, to, { body });
      if (answer.status !== 200) throw new Error(`${method} ${vmName}: ${answer.status} ${answer.text}`);
      return answer;
    };
    if (before.statuses.includes("ABSENT")) {
      const { body } = await ask(
        "POST",
        "/v1/vms",
        { instance: "any", statuses: ["ABSENT", "RUNNING"] },
        { vmName },
      );
      allowed.set(vmName, { instance: String(body["instance"]), statuses: ["RUNNING"] });
      return;
    }
    const { instance } = before;
    if (random() < 0.4) {
      await ask("DELETE", path, { instance, statuses: ["ABSENT", ...before.statuses] });
      allowed.set(vmName, ABSENT);
      return;
    }
    const isUp = before.statuses.includes("RUNNING");
    await ask(
      "PATCH",
      path,
      { instance, statuses: ["RUNNING", "STOPPED"] },
      { status: isUp ? "stopped" : "resume" },
    );
    allowed.set(vmName, { instance, statuses: [isUp ? "STOPPED" : "RUNNING"] });
  }

  /** Ports that are leased, each with its instance. */
  function leases(): string[] {
    const folder = join(bed.folder, "run/pulumi-microvm/leases");
    const groups = existsSync(folder) ? readdirSync(folder).filter((name) => name.startsWith("tcp-")) : [];
    return groups
      .map((group) => {
        const holder = JSON.parse(
          readFileSync(join(folder, group, "127.0.0.1/holder.json"), "utf8"),
        ) as Shown;
        return `${group.slice(4)} ${holder.instance}`;
      })
      .toSorted();
  }

  /** How many starts the server has found killed, and not yet finished. */
  function unfinished(): number {
    const found = log.find((line) => line.includes("took up")) ?? "{}";
    const { unfinished: begun = [] } = JSON.parse(found) as { readonly unfinished?: readonly string[] };
    return begun.length - log.filter((line) => line.includes("its start, which was killed")).length;
  }

  /** What is wrong. What the callers do not know is taken as it is found. */
  async function faults(): Promise<string[]> {
    const { body } = await call(server.url, "GET", "/v1/vms");
    const vms = body["vms"] as readonly Shown[];
    const wrong: string[] = [];
    for (const [vmName, { instance, statuses }] of allowed) {
      const vm = vms.find((other) => other.vmName === vmName);
      const status = vm?.status ?? "ABSENT";
      if (!statuses.includes(status)) wrong.push(`${vmName} is ${status}, expected ${statuses.join(" or ")}`);
      if (vm !== undefined && instance !== "any" && vm.instance !== instance) {
        wrong.push(`${vmName} is of instance ${vm.instance}, expected ${String(instance)}`);
      }
      if (status === "RUNNING" && vm?.rootEvidence !== "proved") wrong.push(`${vmName} is not proved`);
      const processes = vm === undefined ? 0 : findByArgument(`/${vm.instance}.sock`).length;
      const expected = status === "RUNNING" ? 1 : 0;
      if (processes !== expected) wrong.push(`${vmName} is ${status} and has ${processes} processes`);
    }
    const unknown = vms.filter(({ vmName }) => !allowed.has(vmName)).map(({ vmName }) => vmName);
    if (unknown.length > 0) wrong.push(`nobody asked for ${unknown.join(", ")}`);
    const all = findByArgument(`${bed.stateDirectory}/`).length;
    const running = vms.filter(({ status }) => status === "RUNNING").length;
    if (all !== running) wrong.push(`${all} processes for ${running} VMs that run`);
    const expected = vms.flatMap((vm) => vm.portForwards.map(({ hostPort }) => `${hostPort} ${vm.instance}`));
    if (leases().join() !== expected.toSorted().join()) {
      wrong.push(`leases are ${leases().join(", ")}, expected ${expected.toSorted().join(", ")}`);
    }
    if (wrong.length === 0) {
      for (const vmName of allowed.keys()) {
        const vm = vms.find((other) => other.vmName === vmName);
        allowed.set(vmName, vm === undefined ? ABSENT : { instance: vm.instance, statuses: [vm.status] });
      }
    }
    return wrong;
  }

  it.each(Array.from({ length: kills }, (_, kill) => kill))(
    "has lost no VM, doubled none, and left nothing behind when the next one serves (kill %i)",
    async () => {
      let goesOn = true;
      const callers = Array.from({ length: CALLERS }, async (_, caller) => await load(caller, () => goesOn));
      await delay(50 + random() * LONGEST_LOAD_MILLISECONDS);
      await server.end("SIGKILL");
      goesOn = false;
      await Promise.all(callers);
      server = await start();
      // A start that was killed is finished beside the requests.
      await expect.poll(unfinished, { timeout: 30_000, interval: 50 }).toBe(0);
      expect(await faults()).toEqual([]);
      expect(refused.splice(0)).toEqual([]);
    },
    60_000,
  );

  it("was under load", () => {
    process.stderr.write(`${kills} kills, ${answered} of ${asked} requests were answered before them\n`);
    expect(asked).toBeGreaterThanOrEqual(kills);
    expect(log.some((line) => line.includes("took up"))).toBe(true);
  });
});
