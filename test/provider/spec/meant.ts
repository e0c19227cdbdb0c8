/** What inputs that are accepted must come to: held against how the kernel and QEMU read it, not against how we write it. */

import { expect } from "vitest";
import { qemuArguments } from "../../../provider/backends/qemu/arguments.js";
import type { BootConfiguration } from "../../../provider/boot/boot.js";
import type { Spec } from "../../../provider/spec/spec.js";
import { kernelWords, nfsroot, type KernelWord } from "../boot/kernel-words.js";

const wordText = ({ name, value }: KernelWord) => (value === undefined ? name : `${name}=${value}`);

/** The words that a spec means, without the root's. */
function meantWords(spec: Spec): { head: string[]; tail: string[] } {
  const guest = spec.ip.startsWith("10.") ? spec.ip : "10.0.2.15";
  return {
    head: ["console=ttyS0"],
    tail: [
      "gateway_ip=10.0.2.2/24",
      `guest_ip=${guest}/24`,
      `vm_name=${spec.vmName}`,
      ...(spec.entryPoint === undefined ? [] : [`entry_point=${spec.entryPoint}`]),
      ...spec.kernelArgs,
    ],
  };
}

/**
 * Holds that a kernel splits a command line into exactly the words that a spec means.
 *
 * @param guestServer IPv4 address of the NFS server as the guest reaches it.
 */
export function expectMeantWords(spec: Spec, cmdline: string, guestServer: string): void {
  const words = kernelWords(cmdline);
  const { head, tail } = meantWords(spec);
  const root = words.slice(head.length, words.length - tail.length);
  expect(words.slice(0, head.length).map(wordText)).toEqual(head);
  expect(words.slice(words.length - tail.length).map(wordText)).toEqual(tail);
  if (!spec.useNfsRoot) {
    expect(root.map(wordText)).toEqual(spec.initramfs === undefined ? ["root=/dev/vda", "ro"] : []);
    return;
  }
  const guest = spec.ip.startsWith("10.") ? spec.ip : "10.0.2.15";
  const [device, place, ip, rw, ...more] = root;
  expect([device, rw, ...more]).toEqual([{ name: "root", value: "/dev/nfs" }, { name: "rw" }]);
  expect(ip).toEqual({
    name: "ip",
    value: spec.ip === "dhcp" ? "dhcp" : `${guest}::10.0.2.2:255.255.255.0:${spec.vmName}:eth0:off:10.0.2.3`,
  });
  expect(place?.name).toBe("nfsroot");
  const { server, path, options } = nfsroot(place?.value ?? "");
  expect({ server, path }).toEqual({ server: guestServer, path: spec.nfsPath });
  const mountPort = spec.nfsMountPort === "rpcbind" ? [] : [`mountport=${spec.nfsMountPort}`];
  const added = spec.nfsOptions === "" ? [] : spec.nfsOptions.split(",");
  expect(options).toEqual(["nfsvers=3", "tcp", "nolock", `port=${spec.nfsPort}`, ...mountPort, ...added]);
  const names = options.map((option) => option.split("=")[0]);
  for (const name of ["nfsvers", "tcp", "nolock", "port"]) {
    expect(names.filter((other) => other === name)).toHaveLength(1);
  }
  // The kernel gives the path to sprintf.
  expect(path).not.toContain("%");
}

/** Each of these words is ours alone: another would win in silence. */
const ONCE = "console root nfsroot ip nfsaddrs gateway_ip guest_ip vm_name entry_point rdinit".split(" ");

/** Holds that nothing of a boot configuration breaks out of its place. */
export function expectSafe(boot: BootConfiguration, stateDirectory: string): void {
  expect(boot.cmdline).toMatch(/^[\x20-\x7e]+$/);
  expect(Buffer.byteLength(boot.cmdline)).toBeLessThanOrEqual(2047);
  const names = kernelWords(boot.cmdline).map(({ name }) => name);
  for (const name of ONCE) expect(names.filter((other) => other === name).length).toBeLessThanOrEqual(1);
  expect(names).not.toContain("--");
  for (const file of [
    ...boot.disks,
    boot.kernel,
    ...(boot.initramfs === undefined ? [] : [boot.initramfs]),
  ]) {
    expect(file.path).toMatch(/^\/\P{Cc}*$/u);
  }
  for (const disk of boot.disks.slice(boot.root.type === "disk" ? 1 : 0)) {
    expect(disk.path.startsWith(`${stateDirectory}/`)).toBe(true);
    expect(disk.path.slice(stateDirectory.length)).toMatch(/^\/[A-Za-z0-9-]{1,63}\/stateful\.img$/);
  }
}

/** Values of an option of QEMU's: a comma in a value is doubled (qemu(1); get_opt_value() in util/qemu-option.c). */
function qemuOption(text: string): string[] {
  return text
    .replaceAll(",,", "\0")
    .split(",")
    .map((part) => part.replaceAll("\0", ","));
}

/** Holds that QEMU is given what was meant, as it reads its own options. */
export function expectQemu({ vmName, backend }: Spec, boot: BootConfiguration): void {
  if (backend.type !== "qemu") throw new Error(`not a qemu back end: ${backend.type}`);
  const args = qemuArguments(boot, {
    vmName,
    instance: "0123456789abcdef",
    machine: backend.machine,
    accelerator: "tcg",
    sandbox: false,
    paths: { kernel: "/k", controlSocket: "/s", consoleLog: "/c" },
  });
  const after = (name: string) => args.flatMap((arg, index) => (args[index - 1] === name ? [arg] : []));
  expect(after("-append")).toEqual([boot.cmdline]);
  expect(after("-name")).toEqual([`guest=${vmName}`]);
  const disks = after("-blockdev").map(qemuOption);
  expect(disks).toHaveLength(boot.disks.length);
  for (const [index, disk] of boot.disks.entries()) {
    expect(disks[index]?.filter((value) => value.startsWith("file.filename="))).toEqual([
      `file.filename=${disk.path}`,
    ]);
    expect(disks[index]).toContain(`read-only=${disk.readonly === true ? "on" : "off"}`);
  }
  const network = after("-netdev").map(qemuOption)[0] ?? [];
  expect(network.filter((value) => value.startsWith("hostfwd=")).toSorted()).toEqual(
    boot.portForwards
      .map(
        ({ protocol, hostAddress, hostPort, guestPort }) =>
          `hostfwd=${protocol}:${hostAddress}:${hostPort}-${boot.link.guestAddress}:${guestPort}`,
      )
      .toSorted(),
  );
}
