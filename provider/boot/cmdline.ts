/** The kernel command line. Pure; its exact output is what tests and previews hold. */

import { MicroVmError, shown } from "../errors.js";
import type { Spec } from "../spec/spec.js";
import type { GuestLink } from "./boot.js";
import { netmask } from "./network.js";

/** What the command line is made from. */
export interface CommandLineParts {
  readonly spec: Spec;
  readonly link: GuestLink;
  /** IPv4 address of the NFS server as the guest reaches it; absent on a disk root. */
  readonly nfsServerAddress?: string;
  /** Whether the person gave an initramfs, which then knows by itself where a disk root is. */
  readonly ownInitramfs: boolean;
}

/** Longest line that an x86 kernel takes: COMMAND_LINE_SIZE is 2048 with the closing NUL. */
export const LINE_LIMIT_BYTES = 2047;
/** Longest option part of nfsroot=: the kernel adds its own to a buffer of 256 (fs/nfs/nfsroot.c). */
export const NFS_OPTIONS_LIMIT_BYTES = 194;
/** Longest value of nfsroot=: cut in silence at NFS_MAXPATHLEN (fs/nfs/nfsroot.c). */
export const NFSROOT_LIMIT_BYTES = 1024;
/** Words that the kernel does not know go to init; more than 30 and it panics (init/main.c, MAX_INIT_ENVS). */
export const UNKNOWN_WORDS_LIMIT = 30;

const DEFAULT_TRANSFER_SIZES = ["rsize=1048576", "wsize=1048576"] as const;

/**
 * The value of `nfsOptions` as it goes into nfsroot=. The kernel's own transfer size of 4096 bytes reads five
 * times slower, so 1 MiB is added for a size that the person does not name; an empty text stays empty.
 */
export function withTransferSizes(nfsOptions: string | undefined): string {
  if (nfsOptions === "") return "";
  const given = nfsOptions === undefined ? [] : nfsOptions.split(",");
  const names = new Set(given.map((option) => option.split("=")[0]));
  return [...DEFAULT_TRANSFER_SIZES.filter((option) => !names.has(option.split("=")[0])), ...given].join(",");
}

/**
 * The kernel command line of a boot: `console=`, the root, the guest's place on its link, then `kernelArgs`.
 *
 * @throws MicroVmError `invalid-input` when a limit of the kernel is passed.
 */
export function commandLine(parts: CommandLineParts): string {
  const { spec, link } = parts;
  const words = [
    "console=ttyS0",
    ...rootWords(parts),
    `gateway_ip="${withPrefix(link.gatewayAddress, link)}"`,
    `guest_ip="${withPrefix(link.guestAddress, link)}"`,
    `vm_name="${spec.vmName}"`,
    ...(spec.entryPoint === undefined ? [] : [`entry_point="${spec.entryPoint}"`]),
    ...spec.kernelArgs,
  ];
  const unknown = words.filter(isPassedToInit).length;
  if (unknown > UNKNOWN_WORDS_LIMIT) {
    throw new MicroVmError(
      "invalid-input",
      `expected at most ${UNKNOWN_WORDS_LIMIT} words that the kernel does not know (it panics above), got ${unknown} with ours`,
      { input: "kernelArgs" },
    );
  }
  const line = words.join(" ");
  const length = Buffer.byteLength(line);
  if (length > LINE_LIMIT_BYTES) {
    throw new MicroVmError(
      "invalid-input",
      `expected a kernel command line of at most ${LINE_LIMIT_BYTES} bytes, got ${length}: shorten kernelArgs, nfsPath or nfsOptions`,
      { input: "kernelArgs" },
    );
  }
  return line;
}

function rootWords({ spec, link, nfsServerAddress, ownInitramfs }: CommandLineParts): string[] {
  if (!spec.useNfsRoot) return ownInitramfs ? [] : ["root=/dev/vda", "ro"];
  const options = [
    "nfsvers=3",
    "tcp",
    "nolock",
    `port=${spec.nfsPort}`,
    ...(spec.nfsMountPort === "rpcbind" ? [] : [`mountport=${spec.nfsMountPort}`]),
    ...(spec.nfsOptions === "" ? [] : [spec.nfsOptions]),
  ].join(",");
  if (options.length > NFS_OPTIONS_LIMIT_BYTES) {
    throw new MicroVmError(
      "invalid-input",
      `expected at most ${NFS_OPTIONS_LIMIT_BYTES} bytes of NFS options together with ours, got ${options.length}: ${shown(options)}`,
      { input: "nfsOptions" },
    );
  }
  const nfsroot = `${nfsServerAddress}:${spec.nfsPath},${options}`;
  if (nfsroot.length > NFSROOT_LIMIT_BYTES) {
    throw new MicroVmError(
      "invalid-input",
      `expected server, path and options of nfsroot= within ${NFSROOT_LIMIT_BYTES} bytes (the kernel cuts them there), got ${nfsroot.length}`,
      { input: "nfsPath" },
    );
  }
  return ["root=/dev/nfs", `nfsroot=${nfsroot}`, ipWord(spec, link), "rw"];
}

/** `ip=` as Documentation/admin-guide/nfs/nfsroot.rst of the kernel has it. */
function ipWord(spec: Spec, link: GuestLink): string {
  if (spec.ip === "dhcp") return "ip=dhcp";
  const mask = netmask(link.prefixLength ?? 24);
  const fields = [link.guestAddress, "", link.gatewayAddress, mask, spec.vmName, "eth0", "off"];
  return `ip=${[...fields, ...link.nameServers.slice(0, 2)].join(":")}`;
}

function withPrefix(address: string, link: GuestLink): string {
  return link.prefixLength === undefined ? address : `${address}/${link.prefixLength}`;
}

/**
 * Words that any kernel takes for itself; what is not here counts as handed to init, to be on the safe side. `ip` and
 * `nfsroot` are not: a kernel without IP_PNP and ROOT_NFS, which boots with our initramfs, does not know them.
 */
const KERNEL_WORDS = new Set(
  (
    "acpi apparmor audit clocksource console debug earlycon earlyprintk hugepages hugepagesz idle init initcall_debug " +
    "isolcpus lockdown log_buf_len loglevel lsm maxcpus mem mitigations nmi_watchdog noapic nokaslr nolapic " +
    "nopti nosmp nowatchdog nr_cpus oops panic pci printk.time quiet random.trust_cpu reboot rcu_nocbs ro " +
    "root rootdelay rootwait rw selinux transparent_hugepage tsc"
  ).split(" "),
);

/** Whether the kernel hands a word on to init: neither its own nor a module's parameter (`module.name=`). */
function isPassedToInit(word: string): boolean {
  const name = word.split("=", 1)[0] ?? word;
  return !name.includes(".") && !KERNEL_WORDS.has(name);
}
