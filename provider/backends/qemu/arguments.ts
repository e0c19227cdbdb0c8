/** Boot configuration -> QEMU's arguments. Pure; every value is checked or escaped for QEMU's option syntax. */

import { isAbsolute } from "node:path";

import type { BootConfiguration, Disk, GuestLink, PortForward, Root } from "../../boot/boot.js";
import { relayCommand } from "./relay.js";

/** What the arguments depend on beside the boot configuration. */
export interface QemuSetting {
  readonly vmName: string;
  /** 16 hex digits. */
  readonly instance: string;
  readonly machine: "q35" | "microvm";
  readonly accelerator: "kvm" | "tcg";
  /** Whether this QEMU is built with seccomp. */
  readonly sandbox: boolean;
  /** Absolute paths; `initramfs` only when the boot has one. */
  readonly paths: {
    readonly kernel: string;
    readonly initramfs?: string;
    readonly controlSocket: string;
    readonly consoleLog: string;
  };
}

/** Name of the block node of the disk with this position; the guest calls the first one /dev/vda. */
export function diskNode(index: number): string {
  return `disk${index}`;
}

/** Name of the only network back end, for `hostfwd_add` and `hostfwd_remove`. */
export const NETWORK_ID = "net0";

/**
 * The arguments of qemu-system-x86_64 (qemu(1)). The VM starts paused (`-S`), so that its process is recorded before the
 * guest runs; it ends, rather than restarts, when the guest does (`-no-reboot`).
 *
 * @throws Error when a value cannot be passed: all of them were checked before, so that is a fault of the caller.
 */
export function qemuArguments(boot: BootConfiguration, setting: QemuSetting): string[] {
  const { paths } = setting;
  const bus = setting.machine === "q35" ? "pci" : "device";
  return [
    ["-name", option({ guest: setting.vmName })],
    ["-uuid", uuidOf(setting.instance)],
    ["-no-user-config", "-nodefaults", "-no-reboot", "-S"],
    ["-display", "none"],
    ["-machine", machineOption(setting.machine)],
    ["-accel", setting.accelerator],
    ["-cpu", setting.accelerator === "kvm" ? "host" : "max"],
    ["-smp", String(wholeNumber(boot.vcpus))],
    ["-m", option({ size: `${wholeNumber(boot.memoryMiB)}M` })],
    ["-kernel", filePath(paths.kernel)],
    paths.initramfs === undefined ? [] : ["-initrd", filePath(paths.initramfs)],
    ["-append", oneLine(boot.cmdline)],
    ["-chardev", option({ type: "file", id: "console", path: filePath(paths.consoleLog) })],
    ["-serial", "chardev:console"],
    ["-qmp", `unix:${commasDoubled(filePath(paths.controlSocket))},server=on,wait=off`],
    ["-netdev", networkOption(boot)],
    [
      "-device",
      option({
        type: `virtio-net-${bus}`,
        netdev: NETWORK_ID,
        ...(bus === "pci" ? { romfile: "" } : {}),
      }),
    ],
    ...boot.disks.flatMap((disk, index) => diskArguments(disk, index, bus)),
    ["-device", option({ type: `virtio-rng-${bus}` })],
    setting.sandbox ? ["-sandbox", hasRelays(boot) ? RELAYING_SANDBOX : SANDBOX] : [],
  ].flat();
}

// QEMU needs to start no program, gain no right, raise no limit (seccomp(2) filters; qemu(1), -sandbox).
const SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

// It starts relays, and each in a session of its own: setsid(2) counts as a gain of rights, and is denied to children as well. No
// program that is started gets more rights than QEMU has: the filters come with PR_SET_NO_NEW_PRIVS.
const RELAYING_SANDBOX = "on,obsolete=deny,elevateprivileges=allow,spawn=allow,resourcecontrol=deny";

function machineOption(machine: "q35" | "microvm"): string {
  if (machine === "q35") return option({ type: "q35" });
  // The virtio devices are found by ACPI: QEMU must not write them into the command line, which is booted to the letter.
  return option({ type: "microvm", acpi: "on", "auto-kernel-cmdline": "off" });
}

/** Whether the guest meets its NFS server by relays: it reaches nothing else. With a disk root there is nothing to reach. */
function hasRelays({ link, root }: BootConfiguration): boolean {
  return link.nfsOnly === true && root.type === "nfs";
}

function networkOption(boot: BootConfiguration): string {
  const { link, portForwards } = boot;
  const prefix = link.prefixLength ?? 24;
  const nameServer = link.nameServers[0];
  return [
    option({
      type: "user",
      id: NETWORK_ID,
      net: `${networkOf(link.gatewayAddress, prefix)}/${prefix}`,
      host: address(link.gatewayAddress),
      dhcpstart: address(link.guestAddress),
      ...(nameServer === undefined ? {} : { dns: address(nameServer) }),
      ipv6: "off",
      ...(link.nfsOnly === true ? { restrict: "on" } : {}),
    }),
    ...portForwards.map((forward) => `hostfwd=${forwardRule(forward, link)}`),
    ...(hasRelays(boot) ? guestForwards(boot.root) : []),
  ].join(",");
}

/** Each port of the server leads there by a relay. */
function guestForwards(root: Root): string[] {
  if (root.type === "disk") return [];
  const { server, hostServer, port: nfsPort, mountPort } = root;
  if (mountPort === "rpcbind") throw new Error("a relay leads to a port, and rpcbind's answer is not known");
  return [...new Set([nfsPort, mountPort])].map((each) => {
    const command = relayCommand({ host: address(hostServer), port: port(each) });
    return `guestfwd=tcp:${address(server)}:${each}-cmd:${commasDoubled(command)}`;
  });
}

/** A port forward in QEMU's syntax: `tcp:127.0.0.1:8080-10.0.2.15:80`. */
export function forwardRule(forward: PortForward, link: GuestLink): string {
  return `${forwardName(forward)}-${address(link.guestAddress)}:${port(forward.guestPort)}`;
}

/** The host's side of a port forward, by which `hostfwd_remove` knows it: `tcp:127.0.0.1:8080`. */
export function forwardName(forward: PortForward): string {
  return `${forward.protocol}:${address(forward.hostAddress)}:${port(forward.hostPort)}`;
}

function diskArguments(disk: Disk, index: number, bus: "pci" | "device"): string[][] {
  const node = diskNode(index);
  const readonly = disk.readonly === true;
  return [
    [
      "-blockdev",
      option({
        driver: "raw",
        "node-name": node,
        "read-only": readonly ? "on" : "off",
        ...(readonly ? {} : { discard: "unmap" }),
        "file.driver": "file",
        "file.filename": filePath(disk.path),
      }),
    ],
    [
      "-device",
      option({ type: `virtio-blk-${bus}`, drive: node, "num-queues": String(wholeNumber(disk.numQueues)) }),
    ],
  ];
}

/** Values in QEMU's option syntax: `type` first and without its name, a comma in a value doubled. */
function option(values: Readonly<Record<string, string>>): string {
  return Object.entries(values)
    .map(([name, value]) => (name === "type" ? value : `${name}=${commasDoubled(oneLine(value))}`))
    .join(",");
}

function commasDoubled(value: string): string {
  return value.replaceAll(",", ",,");
}

/** 32 hex digits of which the instance is the first 16: version 8, RFC 9562 section 5.8. */
function uuidOf(instance: string): string {
  if (!/^[0-9a-f]{16}$/.test(instance)) throw new Error(`not an instance: ${instance}`);
  const [a, b, c, d] = [
    instance.slice(0, 8),
    instance.slice(8, 12),
    instance.slice(12, 15),
    instance.slice(15),
  ];
  return `${a}-${b}-8${c}-8${d}00-000000000000`;
}

function filePath(value: string): string {
  if (!isAbsolute(value)) throw new Error(`not an absolute path: ${value}`);
  return oneLine(value);
}

function oneLine(value: string): string {
  // oxlint-disable-next-line no-control-regex
  if (/[\u0000-\u001f\u007f]/.test(value)) throw new Error(`a control character in ${JSON.stringify(value)}`);
  return value;
}

function address(value: string): string {
  if (!/^\d{1,3}(?:\.\d{1,3}){3}$/.test(value)) throw new Error(`not an IPv4 address: ${value}`);
  return value;
}

/** The network's own address: `10.0.2.0` for 10.0.2.2 and a prefix of 24. */
function networkOf(member: string, prefix: number): string {
  if (wholeNumber(prefix) < 1 || prefix > 30) throw new Error(`not a usable prefix length: ${prefix}`);
  const bits = address(member)
    .split(".")
    .reduce((sum, byte) => sum * 256 + Number(byte), 0);
  const network = (bits & (-1 << (32 - prefix))) >>> 0;
  return [24, 16, 8, 0].map((shift) => (network >>> shift) & 0xff).join(".");
}

function port(value: number): number {
  if (wholeNumber(value) < 1 || value > 65535) throw new Error(`not a port: ${value}`);
  return value;
}

function wholeNumber(value: number): number {
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`not a whole number: ${value}`);
  return value;
}
