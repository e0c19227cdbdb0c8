import { readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { VmReference } from "../../../provider/backends/backend.js";
import { backendOf } from "../../../provider/backends/index.js";
import {
  downloadFromGuest,
  type GuestAgent,
  runInGuest,
  uploadToGuest,
} from "../../../provider/server/guest-agent.js";
import { addGuestAgent, GUEST_AGENT_PORT, whyNoGuestAgent } from "../../lab/guest-agent.js";
import { whyNoNfsServer } from "../../lab/nfs.js";
import { isOnPath } from "../../lab/programs.js";
import { LocalLab } from "../backends/local-lab.js";

const backend = backendOf({ type: "qemu", machine: "q35", accelerator: "auto" });
const kernel = process.env["MICROVM_LAB_NFS_KERNEL"] ?? process.env["MICROVM_LAB_KERNEL"];
const reason =
  (kernel === undefined ? "MICROVM_LAB_KERNEL is not set" : undefined) ??
  (isOnPath("qemu-system-x86_64") ? whyNoNfsServer() : "qemu-system-x86_64 is not installed") ??
  whyNoGuestAgent();

/** A port of this host that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

describe.skipIf(reason !== undefined)(
  `a real guest with a command server${reason === undefined ? "" : ` (skipped: ${reason})`}`,
  () => {
    let lab: LocalLab;
    let agent: GuestAgent;
    let reference: VmReference;
    beforeAll(async () => {
      lab = await LocalLab.open(backend, kernel ?? "");
      const root = join(lab.folder, "complete");
      await addGuestAgent(root);
      const script =
        '#!/bin/sh\necho "entry point: $0, process $$"\necho started > /var/entry-point.txt\nexec sleep 86400\n';
      await writeFile(join(root, "start"), script, { mode: 0o755 });
      const hostPort = await freePort();
      const forward = {
        hostPort,
        guestPort: GUEST_AGENT_PORT,
        protocol: "tcp",
        hostAddress: "127.0.0.1",
      } as const;
      const vmName = "agent";
      const made = await lab.create({ vmName, portForwards: [forward], entryPoint: "/start" });
      ({ reference } = made);
      agent = { vmName, address: "127.0.0.1", port: hostPort };
      // A command just after the boot waits for the guest's command server.
      expect(await runInGuest(agent, { cmd: "echo up" })).toEqual({ output: "up\n" });
    }, 240_000);
    afterAll(async () => await lab.close());

    it("runs commands and says how they ended", async () => {
      expect(await runInGuest(agent, { cmd: "cat /proc/mounts | grep ' / ' | tail -n 1" })).toEqual({
        output: expect.stringMatching(/^\S+:\S+\/complete \/ nfs /) as string,
      });
      expect(await runInGuest(agent, { cmd: "echo out; echo err >&2; exit 3" })).toEqual({
        output: "out\nerr\n",
        error: "exit status 3",
      });
      expect(await runInGuest(agent, { cmd: "true" })).toEqual({});
    });

    it("starts a command in the background", async () => {
      const { output } = await runInGuest(agent, { cmd: "sleep 1000", blocking: false });
      expect(output).toContain("started in background");
      expect(await runInGuest(agent, { cmd: "pidof sleep | wc -w" })).toEqual({ output: "2\n" });
    });

    it("waits no longer for a command than it was told, and tells that it goes on", async () => {
      const slow = runInGuest(agent, { cmd: "sleep 30", timeoutSeconds: 1 });
      await expect(slow).rejects.toMatchObject({
        code: "guest-agent",
        text: "agent: the guest's command server has not answered within 1 s; the command goes on there",
      });
    });

    it("takes and gives files, whatever characters they hold", async () => {
      const content = 'tab\tquote"é\u2028\n';
      const path = "a b&c=d?.txt";
      expect(
        await uploadToGuest(agent, {
          files: [
            { path, content },
            { path: "/var/up.txt", content: "up" },
          ],
        }),
      ).toEqual({});
      expect(await downloadFromGuest(agent, `${path},none`)).toEqual({
        files: [
          { path, content },
          { path: "none", content: "", error: expect.stringContaining("no such file") as string },
        ],
      });
      expect(await readFile(join(lab.folder, "complete/var/up.txt"), "utf8")).toBe("up");
    });

    it("refuses what the guest cannot write, in the guest's words", async () => {
      await expect(uploadToGuest(agent, { files: [{ path: "/none/x", content: "" }] })).rejects.toMatchObject(
        {
          code: "guest-agent",
          text: expect.stringContaining("failed to write file: /none/x") as string,
        },
      );
    });

    it("has started its entry point", async () => {
      await expect
        .poll(async () => await readFile(join(lab.folder, "complete/var/entry-point.txt"), "utf8"))
        .toBe("started\n");
      const { output } = await runInGuest(agent, { cmd: "ps" });
      expect(output).toContain("sleep 86400");
      expect(await readFile(join(lab.stateDirectory, "agent/console.log"), "utf8")).toMatch(
        /entry point: \/start, process \d+/,
      );
    });

    it("is named when its command server is gone", async () => {
      await runInGuest(agent, { cmd: "killall guest-agent", blocking: false });
      const impatient = { ...agent, patienceSeconds: 1 };
      await expect
        .poll(
          async () =>
            await runInGuest(impatient, { cmd: "true", timeoutSeconds: 5 }).catch((error: unknown) => error),
        )
        .toMatchObject({
          code: "guest-agent",
          text: expect.stringMatching(
            /^agent: no command server answers in the guest \(.*\): it is not up yet, or this guest has none$/,
          ) as string,
        });
      await lab.remove(reference, 0);
      await rm(join(lab.folder, "complete/var/up.txt"));
      await expect(runInGuest(impatient, { cmd: "true" })).rejects.toThrow(/ECONNREFUSED/);
    });
  },
);

describe("a path in a guest", () => {
  const nobody: GuestAgent = { vmName: "vm", address: "127.0.0.1", port: 1 };

  it.each(["", "a/../b", "a\0b", "a\nb", "\x7f", "\x85", `/${"é".repeat(2048)}`])(
    "is refused: %j",
    async (path) => {
      const file = { path, content: "" };
      await expect(uploadToGuest(nobody, { files: [file] })).rejects.toMatchObject({
        code: "invalid-input",
        input: "files.0.path",
      });
      await expect(downloadFromGuest(nobody, `fine,${path}`)).rejects.toMatchObject({
        code: "invalid-input",
        input: "paths",
      });
    },
  );

  it("is needed, as is a command", async () => {
    await expect(uploadToGuest(nobody, { files: [] })).rejects.toThrow("no files provided");
    await expect(runInGuest(nobody, { cmd: " " })).rejects.toMatchObject({
      code: "invalid-input",
      input: "cmd",
    });
  });
});
