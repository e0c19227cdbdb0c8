/** What a guest has closed on its root is on the server, whole, however its VM ends. */

import { link, readFile, rm } from "node:fs/promises";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";

import { endProcess } from "../../provider/host/process.js";
import { closedFiles, lostFiles } from "./guest.js";
import { Stack } from "./stack.js";
import { fastestKernel, whyNoWorld, World } from "./world.js";

const reason = whyNoWorld();
const title = `files that the guest has closed${reason === undefined ? "" : ` (skipped: ${reason})`}`;

describe.skipIf(reason !== undefined)(title, () => {
  let world: World;
  const stack = new Stack();

  beforeAll(async () => {
    world = await World.open(fastestKernel() ?? "");
    Object.assign(process.env, world.env);
    vi.spyOn(process.stdout, "write").mockImplementation(() => true);
  });
  afterAll(async () => {
    vi.restoreAllMocks();
    await world.close();
  });

  /** Lets the guest write for a while, ends its VM meanwhile, and compares its words with what is on the server. */
  const survivesEnd = async (end: () => Promise<unknown>) => {
    // The log goes with the VM, its content stays under another name.
    const kept = join(world.folder, "kept.log");
    await rm(kept, { force: true });
    await link(world.vmPath("console.log"), kept);
    const words = async () => (await readFile(kept, "utf8")).replaceAll("\r", "");
    await expect.poll(async () => closedFiles(await words()).length, { timeout: 30_000 }).toBeGreaterThan(5);
    const before = closedFiles(await words()).length;
    await end();
    const closed = closedFiles(await words());
    expect(await lostFiles(world.root, closed)).toEqual([]);
    return { words: await words(), writtenMeanwhile: closed.length - before };
  };

  it("survive a replace, which powers the guest off in an orderly way first", async () => {
    await stack.up(world.program());
    const next = world.program({ kernelArgs: ["panic=-1", "nowatchdog"] });
    const { words, writtenMeanwhile } = await survivesEnd(async () =>
      expect(await stack.up(next)).toBe("replace"),
    );
    expect(words).toContain("guest: goes off in an orderly way");
    expect(writtenMeanwhile).toBeGreaterThan(0);
  });

  it("survive the death of the hypervisor", async () => {
    await survivesEnd(async () => {
      for (const vmm of world.processes()) await endProcess(vmm, 0);
    });
    expect(await stack.up(world.program({ kernelArgs: ["panic=-1", "nowatchdog"] }))).toBe("update");
  });

  it("survive a delete while the guest is paused, which resumes it to power it off", async () => {
    await stack.up(world.program({ kernelArgs: ["panic=-1", "nowatchdog"], powerState: "paused" }));
    // It wrote before it was proved and paused.
    const kept = join(world.folder, "kept.log");
    await rm(kept, { force: true });
    await link(world.vmPath("console.log"), kept);
    await stack.destroy();
    const words = (await readFile(kept, "utf8")).replaceAll("\r", "");
    expect(words).toContain("guest: goes off in an orderly way");
    expect(await lostFiles(world.root, closedFiles(words))).toEqual([]);
    expect(await world.faults({ resource: undefined, state: "gone", ports: [] })).toEqual([]);
  });

  it("survive a delete that has to force the guest off", async () => {
    await stack.up(world.program({ shutdownTimeoutSeconds: 0 }));
    await survivesEnd(async () => await stack.destroy());
    expect(await world.faults({ resource: undefined, state: "gone", ports: [] })).toEqual([]);
  });
});
