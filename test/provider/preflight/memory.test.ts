import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { hostMemory, memoryFinding, type HostMemory } from "../../../provider/preflight/memory.js";

const host: HostMemory = { totalMiB: 8000, swapMiB: 1000, availableMiB: 4000, overcommit: 0 };

describe("the memory of a guest", () => {
  it("is right when the host has it free", () => {
    expect(memoryFinding(4000, host)).toBeUndefined();
  });

  it("is a warning when the host has it, and not free", () => {
    expect(memoryFinding(4001, host)).toEqual({
      input: "memoryMiB",
      code: "host-unusable",
      certain: false,
      text: "this host has 4000 MiB free of 8000, got 4001: a guest that uses them all may be killed. Give it less, or free memory",
    });
    expect(memoryFinding(9000, host)).toMatchObject({ certain: false });
  });

  it("is an error when the kernel refuses it to QEMU: beyond memory and swap", () => {
    expect(memoryFinding(9001, host)).toMatchObject({
      certain: true,
      text: "expected at most the 9000 MiB that this host has, swap included, got 9001. Give the guest less",
    });
  });

  it("is never refused where the host promises everything (vm.overcommit_memory=1)", () => {
    expect(memoryFinding(9001, { ...host, overcommit: 1 })).toMatchObject({ certain: false });
  });

  it("is held against the commit limit where the host promises nothing (vm.overcommit_memory=2)", () => {
    const strict: HostMemory = { ...host, overcommit: 2, commitLimitMiB: 5000 };
    expect(memoryFinding(5000, strict)).toMatchObject({ certain: false });
    expect(memoryFinding(5001, strict)).toMatchObject({
      certain: true,
      text: "expected at most the 5000 MiB that this host may give its programs, got 5001. Give the guest less",
    });
  });
});

describe("the memory of this host", () => {
  it.skipIf(process.platform !== "linux")("is what /proc tells", async () => {
    const memory = await hostMemory();
    expect(memory?.totalMiB).toBeGreaterThan(64);
    expect(memory?.availableMiB).toBeLessThanOrEqual(memory?.totalMiB ?? 0);
  });

  it("is not known where there is no /proc, or nothing in it", async () => {
    const proc = await mkdtemp(join(tmpdir(), "microvm-proc-"));
    try {
      expect(await hostMemory(join(proc, "none"))).toBeUndefined();
      await mkdir(join(proc, "sys/vm"), { recursive: true });
      await writeFile(join(proc, "sys/vm/overcommit_memory"), "2\n");
      await writeFile(join(proc, "meminfo"), "nothing\n");
      expect(await hostMemory(proc)).toBeUndefined();
      const meminfo = "MemTotal:  8192000 kB\nMemAvailable: 4096000 kB\nCommitLimit: 5120000 kB\n";
      await writeFile(join(proc, "meminfo"), meminfo);
      expect(await hostMemory(proc)).toEqual({
        totalMiB: 8000,
        swapMiB: 0,
        availableMiB: 4000,
        commitLimitMiB: 5000,
        overcommit: 2,
      });
    } finally {
      await rm(proc, { recursive: true });
    }
  });
});
