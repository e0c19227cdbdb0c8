/** Faults of the host: its folders, its process ids, its clock, and others at work on it at the same time. */

import { execFileSync } from "node:child_process";
import { mkdir, rm, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";

import { messageOf } from "../../provider/errors.js";
import { forget } from "../../provider/host/forgotten.js";
import { endProcess, identify, isAlive } from "../../provider/host/process.js";
import { readRecord, writeRecord } from "../../provider/host/record.js";
import { removeUnreadable } from "../../provider/host/remove.js";
import type { Values } from "../../provider/plan/fields.js";
import { freePort } from "../lab/nfs.js";
import { mayMount, mountTmpfs } from "../provider/host/folders.js";
import { ProviderChild } from "./provider-child.js";
import { Stack } from "./stack.js";
import { fastestKernel, whyNoWorld, World } from "./world.js";

const reason = whyNoWorld();
const title = `faults of the host${reason === undefined ? "" : ` (skipped: ${reason})`}`;

describe.skipIf(reason !== undefined)(title, () => {
  let world: World;
  let lines: string[];
  const stopped = { powerState: "stopped" };
  const gone = { resource: undefined, state: "gone", ports: [] } as const;

  beforeAll(async () => {
    world = await World.open(fastestKernel() ?? "");
    Object.assign(process.env, world.env);
    vi.spyOn(process.stdout, "write").mockImplementation((text) => {
      lines.push(String(text));
      return true;
    });
    lines = [];
  });
  afterEach(async () => {
    const faults = await world.faults(gone);
    await world.clear();
    lines = [];
    expect(faults).toEqual([]);
  });
  afterAll(async () => {
    vi.restoreAllMocks();
    await world.close();
  });

  const isRunning = async (stack: Stack) => {
    expect(await world.faults({ resource: stack.resource, state: "running", ports: [] })).toEqual([]);
    expect(await stack.refresh()).toMatchObject({ state: "running", rootEvidence: "proved" });
  };
  const recordOf = async () => {
    const record = await readRecord(world.stateDirectory, world.vmName);
    if (record === undefined) throw new Error("there is no record");
    return record;
  };
  const owned = (vmName: string, changes: Values = {}) =>
    world.program({
      vmName,
      owner: { organization: "organization", urn: `urn:pulumi:dev::faults::${vmName}`, program: "/faults" },
      statefulDiskMiB: 0,
      ...changes,
    });

  it("a control socket that was removed is an error of refresh with the way out, which works", async () => {
    const stack = new Stack();
    await stack.up(world.program());
    await rm((await recordOf()).controlSocket);
    await expect(stack.refresh()).rejects.toThrow(/does not answer.*Set powerState to "stopped"/);
    expect(await stack.up(world.program())).toBe("nothing");
    expect(lines.join("")).toMatch(/does not answer/);
    expect(await stack.up(world.program(stopped))).toBe("update");
    expect(await stack.up(world.program())).toBe("update");
    await isRunning(stack);
    await stack.destroy();
  });

  describe.skipIf(!mayMount)("a state directory on a file system (needs root and mount)", () => {
    it("that became read-only: refresh sees the VM, nothing is changed, and all goes on when it can be written", async () => {
      await mkdir(world.stateDirectory, { recursive: true });
      mountTmpfs(world.stateDirectory, "size=64m,mode=700");
      const stack = new Stack();
      await stack.up(world.program());
      // A mount of its own over it: the hypervisor writes on below.
      execFileSync("mount", ["--bind", world.stateDirectory, world.stateDirectory]);
      execFileSync("mount", ["-o", "remount,bind,ro", world.stateDirectory]);
      expect(await stack.refresh()).toMatchObject({ state: "running" });
      await expect(stack.up(world.program(stopped))).rejects.toThrow(/mounted read-only/);
      await expect(stack.destroy()).rejects.toThrow(/mounted read-only/);
      await expect(new Stack().up(owned("vm-other", stopped))).rejects.toThrow(/mounted read-only/);
      await isRunning(stack);
      execFileSync("umount", ["-l", world.stateDirectory]);
      expect(await stack.up(world.program(stopped))).toBe("update");
      await stack.destroy();
      expect(await world.faults(gone)).toEqual([]);
    });

    it("that is full: a create leaves nothing, the running VM is seen, and removing it makes room", async () => {
      await mkdir(world.stateDirectory, { recursive: true });
      mountTmpfs(world.stateDirectory, "size=64m,mode=700");
      const stack = new Stack();
      await stack.up(world.program());
      const filler = join(world.stateDirectory, ".cache", "filler");
      await mkdir(join(world.stateDirectory, ".cache"), { recursive: true });
      await writeFile(filler, Buffer.alloc(128 * 1024 * 1024)).catch((error: unknown) => {
        expect(error).toMatchObject({ code: "ENOSPC" });
      });
      await expect(new Stack().up(owned("vm-other", stopped))).rejects.toThrow(/file system is full/);
      await expect(stack.up(world.program(stopped))).rejects.toThrow(/file system is full/);
      await isRunning(stack);
      await stack.destroy();
      expect(await world.faults(gone)).toEqual([]);
    });
  });

  it("a state directory that was deleted under a VM: no guess, no second VM beside it, and a way out", async () => {
    const stack = new Stack();
    await stack.up(world.program());
    await rm(world.stateDirectory, { recursive: true });
    await expect(stack.refresh()).rejects.toThrow(/is not there.*microvm forget vm-faults/);
    expect(await stack.up(world.program())).toBe("nothing");
    await forget(world.stateDirectory, world.vmName, () => undefined);
    expect(await stack.plan(world.program())).toMatchObject({ what: "replace" });
    expect(await stack.refresh()).toBeUndefined();
    // The engine drops it from the state.
    const next = new Stack();
    const [vmm] = world.processes();
    await expect(next.up(world.program())).rejects.toThrow(`kill ${vmm?.pid}`);
    if (vmm !== undefined) await endProcess(vmm, 5);
    expect(await next.up(world.program())).toBe("create");
    await isRunning(next);
    await next.destroy();
    await rm(join(world.folder, "run/pulumi-microvm", `${stack.resource?.id.split("/")[1]}.sock`), {
      force: true,
    });
  });

  it("a torn record is an error with the way out, which works", async () => {
    const stack = new Stack();
    await stack.up(world.program());
    const { controlSocket } = await recordOf();
    await writeFile(world.vmPath("vm.json"), world.record().slice(0, 300));
    await expect(stack.refresh()).rejects.toThrow(/is torn.*microvm rm vm-faults/);
    await expect(stack.destroy()).rejects.toThrow(/is torn/);
    await removeUnreadable(world.stateDirectory, world.vmName);
    expect(world.processes()).toEqual([]);
    await rm(controlSocket, { force: true });
    expect(await stack.up(world.program())).toBe("replace");
    await isRunning(stack);
    await stack.destroy();
  });

  it("a record that was deleted shows in the preview, and an up makes the VM anew", async () => {
    const stack = new Stack();
    await stack.up(world.program());
    await rm(world.vmPath("vm.json"));
    expect(await stack.refresh()).toMatchObject({ state: "damaged" });
    expect(await stack.plan(world.program())).toMatchObject({ what: "replace" });
    expect(await stack.up(world.program())).toBe("replace");
    await isRunning(stack);
    await stack.destroy();
  });

  it("a pid in the record that is another program's by now is left alone", async () => {
    const stack = new Stack();
    await stack.up(world.program(stopped));
    const record = await recordOf();
    // This very process, as it would be recorded had its pid belonged to an earlier one.
    const stranger = { ...record.creator, pid: process.pid, startTime: "1" };
    await writeRecord(world.stateDirectory, { ...record, vmm: stranger, creator: stranger, proved: true });
    expect(await stack.refresh()).toMatchObject({ state: "stopped", rootEvidence: "none" });
    expect(await stack.plan(world.program(stopped))).toBeUndefined();
    await stack.destroy();
    expect(isAlive(identify(process.pid) ?? stranger)).toBe(true);
  });

  it("a clock that was set back changes nothing: what is from the future is updated, reclaimed and removed", async () => {
    const future = new Date("2999-12-31T23:59:59Z");
    const first = new Stack();
    await first.up(world.program({ ...stopped, portForwards: await forwards() }));
    await writeRecord(world.stateDirectory, { ...(await recordOf()), createdAt: future.toISOString() });
    for (const name of ["vm.json", "kernel", "stateful.img", "."])
      await utimes(world.vmPath(name), future, future);
    await first.up(world.program({ ...stopped, statefulDiskMiB: 48, portForwards: [] }));
    expect(await first.refresh()).toMatchObject({ state: "stopped" });
    // As if its creator had been killed before the engine knew of it.
    const record = await recordOf();
    const dead = { ...record.creator, startTime: "1" };
    await writeRecord(world.stateDirectory, { ...record, creator: dead });
    await rm(world.vmPath(`confirmed-${record.instance}`));
    const second = new Stack();
    expect(await second.up(world.program(stopped))).toBe("create");
    expect(lines.join("")).toContain("interrupted create (2999-12-31T23:59:59.000Z)");
    await second.destroy();
  });

  it("two engines that make one VM at once: one makes it, the other is told whose it is", async () => {
    const children = [1, 2].map(() => new ProviderChild({ ...process.env, ...world.env }));
    const stacks = await Promise.all(
      children.map(async (child, engine) => {
        const owner = {
          organization: "organization",
          urn: `urn:pulumi:dev::engine${engine}::vm`,
          program: "/faults",
        };
        const order = await new Stack().plan(world.program({ ...stopped, owner }));
        if (order === undefined) throw new Error("the plan is to do nothing");
        await child.order(order);
        return await child.untilOver(60);
      }),
    );
    expect(stacks.map(({ how }) => how).toSorted()).toEqual(["done", "failed"]);
    expect(stacks.find(({ how }) => how === "failed")?.error).toMatch(
      /belongs to urn:pulumi:dev::engine\d::vm/,
    );
    const resource = stacks.find(({ how }) => how === "done")?.resource;
    if (resource === undefined) throw new Error("none was made");
    expect(await world.faults({ resource, state: "stopped", ports: [] })).toEqual([]);
    // And two that remove it at once: both succeed.
    const removers = [1, 2].map(() => new ProviderChild({ ...process.env, ...world.env }));
    const ends = await Promise.all(
      removers.map(async (child) => {
        await child.order({ what: "delete", resource });
        return await child.untilOver(60);
      }),
    );
    expect(ends.map(({ how }) => how)).toEqual(["done", "done"]);
  });

  it("64 creates of one name at once: one makes it, 63 are told whose it is, and nothing of them is left", async () => {
    const stacks = Array.from({ length: 64 }, () => new Stack());
    const results = await Promise.allSettled(
      stacks.map(async (stack, index) => {
        const owner = {
          organization: "organization",
          urn: `urn:pulumi:dev::faults::vm${index}`,
          program: "/faults",
        };
        return await stack.up(world.program({ ...stopped, owner }));
      }),
    );
    const failures = results.flatMap((result) =>
      result.status === "rejected" ? [messageOf(result.reason)] : [],
    );
    expect(failures).toHaveLength(63);
    expect(failures.filter((text) => !/the VM vm-faults belongs to urn:/.test(text))).toEqual([]);
    const made = stacks.find(({ resource }) => resource !== undefined);
    expect(await world.faults({ resource: made?.resource, state: "stopped", ports: [] })).toEqual([]);
    await made?.destroy();
  });

  it("32 creates of 32 names at once, two of them with a guest: all are made, and all are removed", async () => {
    const stacks = Array.from({ length: 32 }, () => new Stack());
    await Promise.all(
      stacks.map(async (stack, index) => await stack.up(owned(`vm-${index}`, index < 2 ? {} : stopped))),
    );
    expect(new Set(stacks.map(({ resource }) => resource?.id)).size).toBe(32);
    expect(world.processes()).toHaveLength(2);
    const states = await Promise.all(stacks.map(async (stack) => (await stack.refresh())?.["state"]));
    expect(states.filter((state) => state === "running")).toHaveLength(2);
    expect(states.filter((state) => state === "stopped")).toHaveLength(30);
    await Promise.all(stacks.map(async (stack) => await stack.destroy()));
  });
});

async function forwards(): Promise<Values[]> {
  return [{ hostPort: await freePort(), guestPort: 80, protocol: "tcp", hostAddress: "127.0.0.1" }];
}
