import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { backendOf } from "../../../provider/backends/index.js";
import { whyNoNfsServer } from "../../lab/nfs.js";
import { isOnPath } from "../../lab/programs.js";
import { testLocalBackend } from "./contract.js";
import { LocalLab } from "./local-lab.js";

const backend = backendOf({ type: "qemu", machine: "q35", accelerator: "auto" });
const missing = isOnPath("qemu-system-x86_64") ? whyNoNfsServer() : "qemu-system-x86_64 is not installed";
const stock = process.env["MICROVM_LAB_KERNEL"];
const nfsRoot = process.env["MICROVM_LAB_NFS_KERNEL"];

/** Runs tests on a kernel, or skips them by name. */
function onKernel(
  title: string,
  kernel: string | undefined,
  variable: string,
  test: (kernel: string) => void,
): void {
  const reason = missing ?? (kernel === undefined ? `${variable} is not set` : undefined);
  if (reason === undefined && kernel !== undefined) test(kernel);
  else describe(title, () => it.skip(`skipped: ${reason}`, () => undefined));
}

const stockTitle = "qemu, the distribution's kernel";
// Where there is the kernel that boots in a third of the time, the longer part is run on that one alone.
onKernel(stockTitle, stock, "MICROVM_LAB_KERNEL", (kernel) =>
  testLocalBackend(stockTitle, { backend, kernel, short: nfsRoot !== undefined }),
);

const nfsRootTitle = "qemu, a kernel with NFS root built in";
onKernel(nfsRootTitle, nfsRoot, "MICROVM_LAB_NFS_KERNEL", (kernel) =>
  testLocalBackend(nfsRootTitle, { backend, kernel }),
);

const microvmTitle = "qemu, machine type microvm";
onKernel(microvmTitle, nfsRoot ?? stock, "MICROVM_LAB_KERNEL", (kernel) =>
  describe(microvmTitle, () => {
    let lab: LocalLab;
    beforeAll(async () => {
      lab = await LocalLab.open(backend, kernel);
    });
    afterAll(async () => await lab.close());

    it.each([
      ["an NFS root", {}],
      ["a disk root", { disk: true }],
    ])("boots %s and powers off in an orderly way", async (_what, choice) => {
      // On a busy host an emulated microvm cannot measure its clock, and hangs unless it is told.
      const kernelArgs = ["panic=-1", "tsc_early_khz=2000000"];
      const { vm, reference, request } = await lab.create({ ...choice, kernelArgs, machine: "microvm" });
      expect(vm).toMatchObject({ state: "running", rootEvidence: "proved" });
      // The command line is booted to the letter: QEMU adds no devices to it.
      expect(await lab.console(vm)).toContain(`Command line: ${request.boot.cmdline}\n`);
      await expect.poll(async () => await lab.console(vm), { timeout: 20_000 }).toContain("guest: ready");
      const { settings } = request;
      await lab.update(reference, { ...request, settings: { ...settings, powerState: "stopped" } });
      expect(await lab.console(vm)).toContain("guest: goes off in an orderly way");
      await lab.remove(reference);
      expect(lab.leftoversOf(reference)).toEqual([]);
    });
  }),
);
