/** Boots a kernel under QEMU for a test of the kernel and initramfs alone, and reads its console. */

import { spawn } from "node:child_process";

/** What to boot. */
export interface GuestBoot {
  readonly kernel: string;
  readonly initramfs?: string;
  readonly cmdline: string;
  readonly machine: "q35" | "microvm";
  /** Disk images in the guest's order. */
  readonly disks?: readonly { readonly path: string; readonly readonly?: true }[];
  readonly until: RegExp;
  readonly timeoutSeconds?: number;
}

/** What came of a boot. */
export interface GuestRun {
  /** The console with plain line ends, up to the end of QEMU. */
  readonly console: string;
  /** `matched`: the console showed what was waited for; QEMU was ended then. `exited`: QEMU ended by itself. */
  readonly end: "matched" | "exited" | "timeout";
}

/** Boots under TCG, on QEMU's user network, until the console matches, QEMU ends, or time is up (90 s by default). */
export async function bootGuest(boot: GuestBoot): Promise<GuestRun> {
  const child = spawn("qemu-system-x86_64", qemuArguments(boot), { stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  let end: GuestRun["end"] = "exited";
  const stop = (reason: GuestRun["end"]): void => {
    if (end === "exited") end = reason;
    child.kill("SIGKILL");
  };
  const timer = setTimeout(() => stop("timeout"), (boot.timeoutSeconds ?? 90) * 1000);
  const read = (chunk: Buffer): void => {
    text += chunk.toString("latin1").replaceAll("\r", "");
    if (boot.until.test(text)) stop("matched");
  };
  child.stdout.on("data", read);
  child.stderr.on("data", read);
  await new Promise((resolve, reject) => {
    child.on("close", resolve);
    child.on("error", reject);
  });
  clearTimeout(timer);
  return { console: text, end };
}

function qemuArguments(boot: GuestBoot): string[] {
  const bus = boot.machine === "q35" ? "pci" : "device";
  // Without ACPI, QEMU would have to write the devices into the command line.
  const machine = boot.machine === "q35" ? "q35" : "microvm,acpi=on,auto-kernel-cmdline=off";
  // A microvm with ACPI has no clock to measure the time stamp counter with but the PIT, and on a busy host that
  // fails under TCG: the kernel then hangs. So it is told the rate; a wrong one only makes the guest's clock wrong.
  const cmdline = boot.machine === "q35" ? boot.cmdline : `tsc_early_khz=2000000 ${boot.cmdline}`;
  const disks = (boot.disks ?? []).flatMap(({ path, readonly }, index) => [
    "-drive",
    `if=none,id=d${index},format=raw,file=${path}${readonly === true ? ",readonly=on" : ""}`,
    "-device",
    `virtio-blk-${bus},drive=d${index}`,
  ]);
  const net = `virtio-net-${bus},netdev=n0${bus === "pci" ? ",romfile=" : ""}`;
  return [
    ["-accel", "tcg", "-cpu", "max", "-machine", machine, "-m", "256", "-nodefaults", "-no-user-config"],
    ["-display", "none", "-serial", "stdio", "-no-reboot"],
    ["-kernel", boot.kernel, "-append", cmdline],
    boot.initramfs === undefined ? [] : ["-initrd", boot.initramfs],
    ["-netdev", "user,id=n0", "-device", net],
    disks,
  ].flat();
}
