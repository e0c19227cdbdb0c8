/** Boots that fail and creates that are interrupted: a part of the contract of local back ends. */

import { describe, expect, it } from "vitest";

import type { Phase } from "../../../provider/host/record.js";
import type { ContractTests } from "./contract.js";
import { type LocalLab, untilPhase } from "./local-lab.js";

/** Defines the tests. */
export function testFailures(labOf: () => LocalLab, { onLinux, onOwn, direct }: ContractTests): void {
  describe("a failed boot leaves nothing and names its cause", () => {
    const inits = [
      [onLinux, "missing", /no (?:executable|init program)/],
      [onLinux, "wrong-format", /error -8|Exec format error/],
      [it, "exits", /init program ended \(exit status 1\)/],
    ] as const;
    for (const [test, guest, cause] of inits) {
      test(`an init that is ${guest}`, async () => {
        const lab = labOf();
        const error = await lab.failureOf(await lab.request({ guest }));
        expect(error.code).toBe("boot-failed");
        expect(error.message).toMatch(cause);
        expect(error.message).toMatch(/The last 20 lines of the guest's console:\n( {2}\| .*\n?){20}$/);
      });
    }

    onLinux("an init= that does not exist", async () => {
      const lab = labOf();
      const error = await lab.failureOf(await lab.request({ kernelArgs: ["panic=-1", "init=/nonexist"] }));
      expect(error.code).toBe("boot-failed");
      expect(error.message).toContain("/nonexist");
    });

    onLinux("an export that the server does not have, long before the kernel gives up", async () => {
      const lab = labOf();
      const begun = performance.now();
      const error = await lab.failureOf(await lab.request({ nfsPath: `${lab.folder}/nowhere` }));
      expect(["nfs-unreachable", "boot-failed"]).toContain(error.code);
      expect(error.message).toContain("nowhere");
      expect(performance.now() - begun).toBeLessThan(60_000);
    });

    onLinux("an NFS server that stops during the boot", async () => {
      const lab = labOf();
      const server = await lab.secondServer();
      const request = await lab.request({ server });
      const failure = lab.failureOf(request);
      await untilPhase(request, ({ phase }) => phase === "started");
      await server.kill();
      expect(await failure).toMatchObject({ code: "nfs-unreachable" });
    });

    onOwn("a hypervisor that is killed during the boot", async () => {
      const lab = labOf();
      const request = await lab.request({ console: "never said" });
      const failure = lab.failureOf(request);
      const record = await untilPhase(request, ({ phase }) => phase === "started");
      process.kill(record.vmm?.pid ?? 0, "SIGKILL");
      const error = await failure;
      expect(error).toMatchObject({ code: "vmm-failed" });
    });

    onLinux("a readiness pattern that never matches", async () => {
      const lab = labOf();
      const error = await lab.failureOf(await lab.request({ console: "never said", timeoutSeconds: 12 }));
      expect(error).toMatchObject({ code: "boot-timeout", input: "readiness.timeoutSeconds" });
      expect(error.message).toMatch(/no proof within 12 s: still waiting for/);
    });

    direct("a kernel that is no longer what was planned", "the server plans", async () => {
      const lab = labOf();
      const request = await lab.request();
      const kernel = { ...request.boot.kernel, sha256: "0".repeat(64) };
      const failure = lab.failureOf({ ...request, boot: { ...request.boot, kernel } });
      expect(await failure).toMatchObject({ code: "file-unusable", input: "kernel" });
    });
  });

  describe("an interrupted create leaves nothing", () => {
    it.each<Phase>(["claimed", "prepared", "spawned", "started"])("in phase %s", async (phase) => {
      const lab = labOf();
      const stop = new AbortController();
      const request = await lab.request({ signal: stop.signal, console: "never said" });
      const failure = lab.failureOf(request);
      const phases: Phase[] = ["claimed", "prepared", "spawned", "started", "ready"];
      await untilPhase(request, (record) => phases.indexOf(record.phase) >= phases.indexOf(phase));
      stop.abort();
      expect(await failure).toMatchObject({ code: "interrupted" });
    });

    it("before it began", async () => {
      const lab = labOf();
      const request = await lab.request({ signal: AbortSignal.abort() });
      expect(await lab.failureOf(request)).toMatchObject({ code: "interrupted" });
    });
  });
}
