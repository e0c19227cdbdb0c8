import { describe, expect, it } from "vitest";
import { diskInputs, messagesOf, nfsInputs, type Inputs } from "./sample-inputs.js";

const port = { hostPort: 8080, guestPort: 80 };

/** What is wrong, the inputs that are changed, the one message. */
const cases: readonly (readonly [what: string, changes: Inputs, message: string])[] = [
  [
    "an input that does not exist",
    { nfsSever: "10.0.0.1" },
    'nfsSever: unknown input; did you mean "nfsServer"?',
  ],
  [
    "an input of the wrong case",
    { NFSServer: "10.0.0.1" },
    'NFSServer: unknown input; did you mean "nfsServer"?',
  ],
  [
    "an input named like Object.prototype",
    JSON.parse('{"__proto__":{"nfsPort":1}}'),
    '__proto__: unknown input; did you mean "rootfs"?',
  ],
  ["an input named constructor", { constructor: 1 }, 'constructor: unknown input; did you mean "initramfs"?'],
  ["an input named toString", { toString: "x" }, 'toString: unknown input; did you mean "rootfs"?'],
  ["an input without a name", { "": 1 }, '"": unknown input; did you mean "ip"?'],
  ["a boolean as text", { useNfsRoot: "true" }, 'useNfsRoot: expected true or false, got "true" (string)'],
  ["a boolean as a number", { useNfsRoot: 1 }, "useNfsRoot: expected true or false, got 1 (number)"],
  [
    "a port as text",
    { nfsPort: "11111" },
    'nfsPort: expected an integer from 1 to 65535, got "11111" (string)',
  ],
  [
    "a port in a list",
    { nfsPort: [11111] },
    "nfsPort: expected an integer from 1 to 65535, got [11111] (list)",
  ],
  ["port 0", { nfsPort: 0 }, "nfsPort: expected an integer from 1 to 65535, got 0 (number)"],
  ["port -0", { nfsPort: -0 }, "nfsPort: expected an integer from 1 to 65535, got 0 (number)"],
  ["a port below zero", { nfsPort: -1 }, "nfsPort: expected an integer from 1 to 65535, got -1 (number)"],
  [
    "a port too large",
    { nfsPort: 65536 },
    "nfsPort: expected an integer from 1 to 65535, got 65536 (number)",
  ],
  [
    "a port that is huge",
    { nfsPort: 2 ** 60 },
    "nfsPort: expected an integer from 1 to 65535, got 1152921504606847000 (number)",
  ],
  [
    "a port with a fraction",
    { nfsPort: 2049.5 },
    "nfsPort: expected an integer from 1 to 65535, got 2049.5 (number)",
  ],
  [
    "a port that is NaN",
    { nfsPort: Number.NaN },
    "nfsPort: expected an integer from 1 to 65535, got NaN (number)",
  ],
  [
    "a port that is Infinity",
    { nfsPort: Number.POSITIVE_INFINITY },
    "nfsPort: expected an integer from 1 to 65535, got Infinity (number)",
  ],
  [
    "no server",
    { nfsServer: undefined },
    "nfsServer: NFS server address is required when useNfsRoot is true, got nothing",
  ],
  [
    "a server that is null",
    { nfsServer: null },
    "nfsServer: NFS server address is required when useNfsRoot is true, got nothing",
  ],
  [
    "no port",
    { nfsPort: undefined },
    "nfsPort: NFS server port is required when useNfsRoot is true, got nothing",
  ],
  [
    "an empty server",
    { nfsServer: "" },
    'nfsServer: expected a host name or an IPv4 address, got "" (string)',
  ],
  [
    "a server as a number",
    { nfsServer: 2130706433 },
    "nfsServer: expected a host name or an IPv4 address, got 2130706433 (number)",
  ],
  [
    "a server as a list",
    { nfsServer: ["127.0.0.1"] },
    'nfsServer: expected a host name or an IPv4 address, got ["127.0.0.1"] (list)',
  ],
  [
    "a server with a port",
    { nfsServer: "10.0.0.1:2049" },
    'nfsServer: expected an IPv4 address or a host name: nfsroot= takes no IPv6 address, and the port goes into nfsPort, got "10.0.0.1:2049" (string)',
  ],
  [
    "an IPv6 address",
    { nfsServer: "::1" },
    'nfsServer: expected an IPv4 address or a host name: nfsroot= takes no IPv6 address, and the port goes into nfsPort, got "::1" (string)',
  ],
  [
    "an IPv4 address of three numbers",
    { nfsServer: "10.0.1" },
    'nfsServer: expected a host name or an IPv4 address, got "10.0.1" (string)',
  ],
  [
    "an IPv4 address with a number too large",
    { nfsServer: "10.0.0.256" },
    'nfsServer: expected a host name or an IPv4 address, got "10.0.0.256" (string)',
  ],
  [
    "an IPv4 network",
    { nfsServer: "10.0.0.0/24" },
    'nfsServer: expected a host name or an IPv4 address, got "10.0.0.0/24" (string)',
  ],
  [
    "a server with a newline",
    { nfsServer: "10.0.0.1\n" },
    'nfsServer: expected a host name or an IPv4 address, got "10.0.0.1\\n" (string)',
  ],
  [
    "a server with a blank",
    { nfsServer: "10.0.0.1 init=/bin/sh" },
    'nfsServer: expected a host name or an IPv4 address, got "10.0.0.1 init=/bin/sh" (string)',
  ],
  [
    "a server with a comma",
    { nfsServer: "10.0.0.1,rw" },
    'nfsServer: expected a host name or an IPv4 address, got "10.0.0.1,rw" (string)',
  ],
  [
    "a server with a quote",
    { nfsServer: 'a"b' },
    'nfsServer: expected a host name or an IPv4 address, got "a\\"b" (string)',
  ],
  [
    "a server with a label too long",
    { nfsServer: `${"a".repeat(64)}.example` },
    'nfsServer: expected a host name or an IPv4 address, got "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example" (string)',
  ],
  [
    "a server with a hyphen at the end of a label",
    { nfsServer: "nfs-.example" },
    'nfsServer: expected a host name or an IPv4 address, got "nfs-.example" (string)',
  ],
  [
    "a URL as a server",
    { nfsServer: "nfs://10.0.0.1/" },
    'nfsServer: expected an IPv4 address or a host name: nfsroot= takes no IPv6 address, and the port goes into nfsPort, got "nfs://10.0.0.1/" (string)',
  ],
  [
    "a multicast address",
    { nfsServer: "224.0.0.1" },
    'nfsServer: expected the address of one host, got "224.0.0.1" (string)',
  ],
  [
    "the broadcast address",
    { nfsServer: "255.255.255.255" },
    'nfsServer: expected the address of one host, got "255.255.255.255" (string)',
  ],
  [
    "a server for a disk root",
    { ...diskInputs, useNfsRoot: undefined, nfsPort: undefined },
    "nfsServer: expected useNfsRoot: true beside it: without it the VM boots from a disk and never asks this server",
  ],
  [
    "an export that is not absolute",
    { nfsPath: "exports/vm" },
    'nfsPath: expected an absolute path, got "exports/vm" (string)',
  ],
  [
    "an export with a blank",
    { nfsPath: "/exports/my vm" },
    'nfsPath: expected a path of printable ASCII without blanks, quotes, commas and backslashes, got "/exports/my vm" (string)',
  ],
  [
    "an export with a newline",
    { nfsPath: "/exports\ninit=/bin/sh" },
    'nfsPath: expected a path of printable ASCII without blanks, quotes, commas and backslashes, got "/exports\\ninit=/bin/sh" (string)',
  ],
  [
    "an export with a comma, which would end it",
    { nfsPath: "/exports,port=1" },
    'nfsPath: expected a path of printable ASCII without blanks, quotes, commas and backslashes, got "/exports,port=1" (string)',
  ],
  [
    "an export with a quote",
    { nfsPath: '/exports" init=/bin/sh' },
    'nfsPath: expected a path of printable ASCII without blanks, quotes, commas and backslashes, got "/exports\\" init=/bin/sh" (string)',
  ],
  [
    "an export with %, which the kernel substitutes",
    { nfsPath: "/exports/%s" },
    'nfsPath: expected a path without %: the kernel would substitute it, got "/exports/%s" (string)',
  ],
  [
    "an export with ..",
    { nfsPath: "/exports/../etc" },
    'nfsPath: expected a path without .. in it, got "/exports/../etc" (string)',
  ],
  [
    "an export with NUL",
    { nfsPath: "/exports\0" },
    'nfsPath: expected a path of printable ASCII without blanks, quotes, commas and backslashes, got "/exports\\u0000" (string)',
  ],
  [
    "an export beyond ASCII",
    { nfsPath: "/exports/é" },
    'nfsPath: expected a path of printable ASCII without blanks, quotes, commas and backslashes, got "/exports/é" (string)',
  ],
  [
    "an export too long",
    { nfsPath: `/${"x".repeat(1024)}` },
    'nfsPath: expected a path of at most 1024 bytes (MNTPATHLEN, RFC 1813), got "/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx… (string)',
  ],
  [
    "a mount port as other text",
    { nfsMountPort: "portmap" },
    'nfsMountPort: expected an integer from 1 to 65535, or "rpcbind", got "portmap" (string)',
  ],
  [
    "a mount port 0",
    { nfsMountPort: 0 },
    'nfsMountPort: expected an integer from 1 to 65535, or "rpcbind", got 0 (number)',
  ],
  [
    "NFS options with a blank",
    { nfsOptions: "hard, nconnect=2" },
    'nfsOptions: expected NFS mount options as option[=value], separated by commas, without blanks and quotes, got "hard, nconnect=2" (string)',
  ],
  [
    "NFS options with a second port",
    { nfsOptions: "hard,port=2049" },
    'nfsOptions: expected no "port" (nfsPort decides it), got "port=2049" (string)',
  ],
  [
    "NFS options with another version",
    { nfsOptions: "vers=4" },
    'nfsOptions: expected no "vers" (the root is NFS version 3), got "vers=4" (string)',
  ],
  [
    "NFS options over UDP",
    { nfsOptions: "udp" },
    'nfsOptions: expected no "udp" (the root is mounted over TCP), got "udp" (string)',
  ],
  [
    "NFS options with another mount host",
    { nfsOptions: "mounthost=10.0.0.9" },
    'nfsOptions: expected no "mounthost" (nfsServer decides it), got "mounthost=10.0.0.9" (string)',
  ],
  [
    "NFS options with an empty option",
    { nfsOptions: "hard,,soft" },
    'nfsOptions: expected NFS mount options as option[=value], separated by commas, without blanks and quotes, got "hard,,soft" (string)',
  ],
  [
    "NFS options with a quote",
    { nfsOptions: 'hard"' },
    'nfsOptions: expected NFS mount options as option[=value], separated by commas, without blanks and quotes, got "hard\\"" (string)',
  ],
  [
    "NFS options as a list",
    { nfsOptions: ["hard"] },
    'nfsOptions: expected NFS mount options, separated by commas, got ["hard"] (list)',
  ],
  [
    "a kernel that is not absolute",
    { kernel: "vmlinuz" },
    'kernel: expected an absolute path, got "vmlinuz" (string)',
  ],
  ["no kernel", { kernel: undefined }, "kernel: expected the absolute path of a kernel image, got nothing"],
  ["an empty kernel", { kernel: "" }, 'kernel: expected an absolute path, got "" (string)'],
  [
    "a kernel with a newline",
    { kernel: "/boot/vmlinuz\n" },
    'kernel: expected a path without control characters, got "/boot/vmlinuz\\n" (string)',
  ],
  [
    "a kernel with NUL",
    { kernel: "/boot/vmlinuz\0.txt" },
    'kernel: expected a path without control characters, got "/boot/vmlinuz\\u0000.txt" (string)',
  ],
  [
    "a kernel with an escape sequence",
    { kernel: "/boot/\u009b31m" },
    'kernel: expected a path without control characters, got "/boot/\\u009b31m" (string)',
  ],
  [
    "a kernel with a path too long in bytes",
    { kernel: `/${"é".repeat(2048)}` },
    'kernel: expected a path of at most 4095 bytes (PATH_MAX), got "/éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé… (string)',
  ],
  [
    "an initramfs in a home directory",
    { initramfs: "~/initramfs.gz" },
    'initramfs: expected an absolute path, got "~/initramfs.gz" (string)',
  ],
  [
    "an initramfs as an object",
    { initramfs: { path: "/initramfs" } },
    'initramfs: expected an absolute path, got {"path":"/initramfs"} (object)',
  ],
  [
    "no root at all",
    { useNfsRoot: false, nfsServer: undefined, nfsPort: undefined },
    "rootfs: expected the absolute path of a root file system image (or useNfsRoot: true), got nothing",
  ],
  [
    "a root disk that is not absolute",
    { ...diskInputs, useNfsRoot: false, nfsServer: undefined, rootfs: "./rootfs.img" },
    'rootfs: expected an absolute path, got "./rootfs.img" (string)',
  ],
  [
    "a name with a dot",
    { vmName: "web.example" },
    'vmName: expected one DNS label: 1 to 63 letters, digits and inner hyphens, got "web.example" (string)',
  ],
  [
    "a name that is ..",
    { vmName: ".." },
    'vmName: expected one DNS label: 1 to 63 letters, digits and inner hyphens, got ".." (string)',
  ],
  [
    "a name with a slash",
    { vmName: "../../etc" },
    'vmName: expected one DNS label: 1 to 63 letters, digits and inner hyphens, got "../../etc" (string)',
  ],
  [
    "a name with a quote",
    { vmName: 'web" init=/bin/sh "' },
    'vmName: expected one DNS label: 1 to 63 letters, digits and inner hyphens, got "web\\" init=/bin/sh \\"" (string)',
  ],
  [
    "a name with a newline",
    { vmName: "web\n" },
    'vmName: expected one DNS label: 1 to 63 letters, digits and inner hyphens, got "web\\n" (string)',
  ],
  [
    "a name that begins with a hyphen",
    { vmName: "-web" },
    'vmName: expected one DNS label: 1 to 63 letters, digits and inner hyphens, got "-web" (string)',
  ],
  [
    "a name too long",
    { vmName: "x".repeat(64) },
    'vmName: expected one DNS label: 1 to 63 letters, digits and inner hyphens, got "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" (string)',
  ],
  [
    "an empty name",
    { vmName: "" },
    'vmName: expected one DNS label: 1 to 63 letters, digits and inner hyphens, got "" (string)',
  ],
  [
    "a name as a number",
    { vmName: 5 },
    "vmName: expected one DNS label: 1 to 63 letters, digits and inner hyphens, got 5 (number)",
  ],
  [
    "an entry point with arguments",
    { entryPoint: "/agent --verbose" },
    'entryPoint: expected a word of printable ASCII without blanks, quotes and backslashes, got "/agent --verbose" (string)',
  ],
  [
    "an entry point with a quote",
    { entryPoint: '/agent" init="/bin/sh' },
    'entryPoint: expected a word of printable ASCII without blanks, quotes and backslashes, got "/agent\\" init=\\"/bin/sh" (string)',
  ],
  [
    "an entry point too long",
    { entryPoint: `/${"x".repeat(256)}` },
    'entryPoint: expected a word of at most 256 characters, got "/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx… (string)',
  ],
  [
    "kernelArgs as one text",
    { kernelArgs: "panic=-1" },
    'kernelArgs: expected a list of words for the kernel command line, got "panic=-1" (string)',
  ],
  [
    "a word with a blank",
    { kernelArgs: ["panic=-1 init=/bin/sh"] },
    'kernelArgs.0: expected a word of printable ASCII without blanks, quotes and backslashes, got "panic=-1 init=/bin/sh" (string)',
  ],
  [
    "a word with a tab",
    { kernelArgs: ["a\tb"] },
    'kernelArgs.0: expected a word of printable ASCII without blanks, quotes and backslashes, got "a\\tb" (string)',
  ],
  [
    "a word with a newline",
    { kernelArgs: ["a", "b\n"] },
    'kernelArgs.1: expected a word of printable ASCII without blanks, quotes and backslashes, got "b\\n" (string)',
  ],
  [
    "a word with a no-break space",
    { kernelArgs: ["a\u00a0b"] },
    'kernelArgs.0: expected a word of printable ASCII without blanks, quotes and backslashes, got "a\u00a0b" (string)',
  ],
  [
    "an empty word",
    { kernelArgs: [""] },
    'kernelArgs.0: expected a word of printable ASCII without blanks, quotes and backslashes, got "" (string)',
  ],
  [
    "a word that is a number",
    { kernelArgs: [1] },
    "kernelArgs.0: expected a word of printable ASCII without blanks, quotes and backslashes, got 1 (number)",
  ],
  [
    "a list of words with a hole",
    { kernelArgs: [undefined, "a"] },
    "kernelArgs.0: expected a word of printable ASCII without blanks, quotes and backslashes, got nothing",
  ],
  [
    "a second root",
    { kernelArgs: ["root=/dev/vda"] },
    'kernelArgs: expected no "root" (useNfsRoot decides it), got "root=/dev/vda" (string)',
  ],
  [
    "a second nfsroot",
    { kernelArgs: ["nfsroot=10.0.0.1:/"] },
    'kernelArgs: expected no "nfsroot" (nfsServer, nfsPath and nfsOptions decide it), got "nfsroot=10.0.0.1:/" (string)',
  ],
  [
    "a second ip",
    { kernelArgs: ["ip=dhcp"] },
    'kernelArgs: expected no "ip" (ip decides it), got "ip=dhcp" (string)',
  ],
  [
    "the old name of ip",
    { kernelArgs: ["nfsaddrs=10.0.0.1"] },
    'kernelArgs: expected no "nfsaddrs" (ip decides it), got "nfsaddrs=10.0.0.1" (string)',
  ],
  [
    "another console",
    { kernelArgs: ["console=tty0"] },
    'kernelArgs: expected no "console" (the console is where the evidence comes from), got "console=tty0" (string)',
  ],
  [
    "another init of the initramfs",
    { kernelArgs: ["rdinit=/bin/sh"] },
    'kernelArgs: expected no "rdinit" (the initramfs decides it), got "rdinit=/bin/sh" (string)',
  ],
  [
    "another name of the VM",
    { kernelArgs: ["vm_name=other"] },
    'kernelArgs: expected no "vm_name" (vmName decides it), got "vm_name=other" (string)',
  ],
  [
    "another address of the guest",
    { kernelArgs: ["guest_ip=10.0.2.9"] },
    'kernelArgs: expected no "guest_ip" (it is set already), got "guest_ip=10.0.2.9" (string)',
  ],
  [
    "the end of the kernel's words",
    { kernelArgs: ["--", "x"] },
    'kernelArgs: expected no "--" (what follows it would not be the kernel\'s), got "--" (string)',
  ],
  [
    "quiet",
    { kernelArgs: ["quiet"] },
    'kernelArgs: expected no "quiet" (it hides the console lines that prove the root), unless readiness.console names a line of your guest\'s own',
  ],
  [
    "a low loglevel",
    { kernelArgs: ["loglevel=4"] },
    'kernelArgs: expected no "loglevel=4" (it hides the console lines that prove the root), unless readiness.console names a line of your guest\'s own',
  ],
  [
    "a low loglevel in disguise",
    { kernelArgs: ["loglevel=4,"] },
    'kernelArgs: expected no "loglevel=4," (it hides the console lines that prove the root), unless readiness.console names a line of your guest\'s own',
  ],
  [
    "ip as other text",
    { ip: "auto" },
    'ip: expected "static", "dhcp" or an IPv4 address, got "auto" (string)',
  ],
  [
    "ip as IPv6",
    { ip: "fe80::1" },
    'ip: expected "static", "dhcp" or an IPv4 address, got "fe80::1" (string)',
  ],
  [
    "ip with a field of its own",
    { ip: "10.0.2.16:eth1" },
    'ip: expected "static", "dhcp" or an IPv4 address, got "10.0.2.16:eth1" (string)',
  ],
  [
    "an ip outside of the network",
    { ip: "192.168.1.5" },
    'ip: expected an address from 10.0.2.4 to 10.0.2.254, as the user network has them, got "192.168.1.5" (string)',
  ],
  [
    "the gateway's ip",
    { ip: "10.0.2.2" },
    'ip: expected an address from 10.0.2.4 to 10.0.2.254, as the user network has them, got "10.0.2.2" (string)',
  ],
  ["no vCPU", { vcpus: 0 }, "vcpus: expected an integer from 1 to 255, got 0 (number)"],
  ["vCPUs as text", { vcpus: "2" }, 'vcpus: expected an integer from 1 to 255, got "2" (string)'],
  [
    "too little memory",
    { memoryMiB: 31 },
    "memoryMiB: expected an integer from 32 to 16777216, got 31 (number)",
  ],
  [
    "memory with a unit",
    { memoryMiB: "512M" },
    'memoryMiB: expected an integer from 32 to 16777216, got "512M" (string)',
  ],
  [
    "a disk too small",
    { statefulDiskMiB: 15 },
    "statefulDiskMiB: expected 0 for no disk, or an integer from 16 to 16777216, got 15 (number)",
  ],
  [
    "a disk that is huge",
    { statefulDiskMiB: 1e300 },
    "statefulDiskMiB: expected 0 for no disk, or an integer from 16 to 16777216, got 1e+300 (number)",
  ],
  [
    "a disk as a boolean",
    { statefulDiskMiB: true },
    "statefulDiskMiB: expected 0 for no disk, or an integer from 16 to 16777216, got true (boolean)",
  ],
  [
    "one port forward without a list",
    { portForwards: port },
    'portForwards: expected a list of { hostPort, guestPort, protocol?, hostAddress? }, got {"hostPort":8080,"guestPort":80} (object)',
  ],
  [
    "port forwards as text",
    { portForwards: "8080:80" },
    'portForwards: expected a list of { hostPort, guestPort, protocol?, hostAddress? }, got "8080:80" (string)',
  ],
  [
    "a port forward as text",
    { portForwards: ["8080:80"] },
    'portForwards.0: expected an object { hostPort, guestPort, protocol?, hostAddress? }, got "8080:80" (string)',
  ],
  [
    "a port forward as a list",
    { portForwards: [[8080, 80]] },
    "portForwards.0: expected an object { hostPort, guestPort, protocol?, hostAddress? }, got [8080,80] (list)",
  ],
  [
    "a port forward without a guest port",
    { portForwards: [{ hostPort: 8080 }] },
    "portForwards.0.guestPort: expected an integer from 1 to 65535, got nothing",
  ],
  [
    "a port forward with an unknown field",
    { portForwards: [{ ...port, host: "0.0.0.0" }] },
    'portForwards.0: expected an object { hostPort, guestPort, protocol?, hostAddress? }, got the unknown field "host"',
  ],
  [
    "a port forward with __proto__",
    { portForwards: [JSON.parse('{"hostPort":1,"guestPort":2,"__proto__":{}}')] },
    'portForwards.0: expected an object { hostPort, guestPort, protocol?, hostAddress? }, got the unknown field "__proto__"',
  ],
  [
    "a port forward with constructor and toString",
    { portForwards: [{ ...port, constructor: 1, toString: 2 }] },
    'portForwards.0: expected an object { hostPort, guestPort, protocol?, hostAddress? }, got the unknown fields "constructor", "toString"',
  ],
  [
    "a port forward of another protocol",
    { portForwards: [{ ...port, protocol: "sctp" }] },
    'portForwards.0.protocol: expected one of "tcp", "udp", got "sctp" (string)',
  ],
  [
    "a port forward on a named host",
    { portForwards: [{ ...port, hostAddress: "localhost" }] },
    'portForwards.0.hostAddress: expected an IPv4 address, got "localhost" (string)',
  ],
  [
    "an address that adds an option to QEMU's",
    { portForwards: [{ ...port, hostAddress: "127.0.0.1,restrict=off" }] },
    'portForwards.0.hostAddress: expected an IPv4 address, got "127.0.0.1,restrict=off" (string)',
  ],
  [
    "a second port forward that is wrong",
    { portForwards: [port, { ...port, hostPort: 70000 }] },
    "portForwards.1.hostPort: expected an integer from 1 to 65535, got 70000 (number)",
  ],
  [
    "two port forwards of one port",
    { portForwards: [port, port] },
    "portForwards.1.hostPort: expected a port that no other forward uses, got that of portForwards.0",
  ],
  [
    "a port forward on all addresses beside one of them",
    { portForwards: [{ ...port, hostAddress: "0.0.0.0" }, port] },
    "portForwards.1.hostPort: expected a port that no other forward uses, got that of portForwards.0",
  ],
  [
    "guest access of another kind",
    { guestAccess: "none" },
    'guestAccess: expected one of "internet", "nfs-only", got "none" (string)',
  ],
  [
    "the NFS server's address for a guest that reaches nothing else",
    { guestAccess: "nfs-only", ip: "10.0.2.100" },
    'ip: expected another address beside guestAccess: "nfs-only", which shows the guest its NFS server at this one, got "10.0.2.100" (string)',
  ],
  [
    "datagrams for a guest that reaches nothing but its NFS server",
    { guestAccess: "nfs-only", portForwards: [port, { hostPort: 53, guestPort: 53, protocol: "udp" }] },
    'portForwards.1.protocol: expected "tcp" beside guestAccess: "nfs-only", with which QEMU drops every datagram that the guest sends, got "udp"',
  ],
  [
    "a server's port mapper for a guest that reaches nothing but the ports that are named",
    { guestAccess: "nfs-only", nfsPort: 2049 },
    'nfsMountPort: expected the TCP port of mountd beside guestAccess: "nfs-only", which opens that port and no other, got "rpcbind" (the default beside nfsPort 2049); `rpcinfo -p` with the server names it',
  ],
  [
    "a power state of another kind",
    { powerState: "on" },
    'powerState: expected one of "running", "paused", "stopped", got "on" (string)',
  ],
  [
    "readiness as a number",
    { readiness: 60 },
    "readiness: expected an object { timeoutSeconds?, console?, required? }, got 60 (number)",
  ],
  [
    "readiness as a list",
    { readiness: [] },
    "readiness: expected an object { timeoutSeconds?, console?, required? }, got [] (list)",
  ],
  [
    "readiness with an unknown field",
    { readiness: { timeout: 60 } },
    'readiness: expected an object { timeoutSeconds?, console?, required? }, got the unknown field "timeout"',
  ],
  [
    "readiness without time",
    { readiness: { timeoutSeconds: 0 } },
    "readiness.timeoutSeconds: expected an integer from 1 to 86400, got 0 (number)",
  ],
  [
    "readiness with a pattern that does not compile",
    { readiness: { console: "(" } },
    'readiness.console: expected a regular expression that JavaScript can compile, got "(" (string)',
  ],
  [
    "readiness with an empty pattern",
    { readiness: { console: "" } },
    'readiness.console: expected a regular expression that is not empty, got "" (string)',
  ],
  [
    "a shutdown time below zero",
    { shutdownTimeoutSeconds: -1 },
    "shutdownTimeoutSeconds: expected an integer from 0 to 3600, got -1 (number)",
  ],
  [
    "a back end as text",
    { backend: "qemu" },
    'backend: expected an object whose type is "qemu", "cloud-hypervisor" or "arrakis", got "qemu" (string)',
  ],
  [
    "a back end without a type",
    { backend: {} },
    'backend.type: expected an object whose type is "qemu", "cloud-hypervisor" or "arrakis", got nothing',
  ],
  [
    "a back end of another type",
    { backend: { type: "firecracker" } },
    'backend.type: expected an object whose type is "qemu", "cloud-hypervisor" or "arrakis", got "firecracker" (string)',
  ],
  [
    "a back end named like a method",
    { backend: { type: "toString" } },
    'backend.type: expected an object whose type is "qemu", "cloud-hypervisor" or "arrakis", got "toString" (string)',
  ],
  [
    "a back end with an unknown field",
    { backend: { type: "qemu", cpu: "host" } },
    'backend: expected an object { type: "qemu", machine?, accelerator?, binary? }, got the unknown field "cpu"',
  ],
  [
    "a machine of another kind",
    { backend: { type: "qemu", machine: "pc" } },
    'backend.machine: expected one of "q35", "microvm", got "pc" (string)',
  ],
  [
    "a machine with an option of QEMU's",
    { backend: { type: "qemu", machine: "q35,dumpdtb=/etc/passwd" } },
    'backend.machine: expected one of "q35", "microvm", got "q35,dumpdtb=/etc/passwd" (string)',
  ],
  [
    "a program that is not absolute",
    { backend: { type: "qemu", binary: "qemu" } },
    'backend.binary: expected an absolute path, got "qemu" (string)',
  ],
  [
    "a number of vCPUs on a server",
    { backend: { type: "arrakis", url: "http://10.0.0.1" }, vcpus: 2 },
    "vcpus: not supported: Arrakis' API has no such field, the server gives each VM a share of its CPUs; leave it out",
  ],
  [
    "a console pattern on a server",
    { backend: { type: "arrakis", url: "http://10.0.0.1" }, readiness: { console: "ready" } },
    "readiness.console: not supported: the console of a guest on a server cannot be read from here; leave it out",
  ],
  [
    "a user in a server's URL, which would be a secret in clear",
    { backend: { type: "arrakis", url: "http://10.0.0.1@example.com" } },
    'backend.url: expected a URL such as http://127.0.0.1:7000, https://HOST:PORT or unix:///run/microvm.sock, without user and query, got "http://10.0.0.1@example.com" (string)',
  ],
  [
    "a socket without a path",
    { backend: { type: "arrakis", url: "unix://" } },
    'backend.url: expected a URL such as http://127.0.0.1:7000, https://HOST:PORT or unix:///run/microvm.sock, without user and query, got "unix://" (string)',
  ],
  [
    "a token that breaks out of its header",
    { backend: { type: "arrakis", url: "http://10.0.0.1", token: "a\r\nb: c" } },
    'backend.token: expected a bearer token of letters, digits and - . _ ~ + / =, got "a\\r\\nb: c" (string)',
  ],
  [
    "a guest on this host that need not show its root",
    { readiness: { required: false } },
    "readiness.required: not supported: every guest on this host must show its root; leave it out",
  ],
  [
    "a VMM of someone else's without a tap",
    { backend: { type: "cloud-hypervisor", apiSocket: "/run/chv.sock" } },
    "network.tap: expected the name of an existing tap (the network of a VMM at backend.apiSocket is its owner's, and no tap is made in it), got nothing",
  ],
  [
    "a port forward in a network of someone else's",
    {
      backend: { type: "cloud-hypervisor", apiSocket: "/run/chv.sock" },
      network: { tap: "tap0" },
      portForwards: [{ hostPort: 8080, guestPort: 80 }],
    },
    "portForwards: not supported: the network of a VMM at backend.apiSocket is its owner's, and no rules are made in it; leave it out",
  ],
  [
    "a guest kept in a network of someone else's",
    {
      backend: { type: "cloud-hypervisor", apiSocket: "/run/chv.sock" },
      network: { tap: "tap0" },
      nfsMountPort: 20048,
      guestAccess: "nfs-only",
    },
    "guestAccess: not supported: the network of a VMM at backend.apiSocket is its owner's, and no rules are made in it; leave it out",
  ],
  [
    "a binary for a VMM that runs already",
    {
      backend: { type: "cloud-hypervisor", apiSocket: "/run/chv.sock", binary: "/bin/ch" },
      network: { tap: "tap0" },
    },
    "backend.binary: not supported: the VMM at backend.apiSocket runs already; leave it out",
  ],
  [
    "a snapshot in a VMM of someone else's",
    {
      backend: { type: "cloud-hypervisor", apiSocket: "/run/chv.sock" },
      network: { tap: "tap0" },
      snapshotId: "s1",
      acceptStaleRoot: true,
    },
    "snapshotId: not supported: a VMM at backend.apiSocket restores no snapshots; leave it out",
  ],
  [
    "passt beside a bridge",
    { backend: { type: "cloud-hypervisor" }, network: { passt: true, bridge: "br0" } },
    "network.bridge: not supported: passt needs neither bridge nor tap; leave it out",
  ],
  [
    "a guest that passt is to keep from what this host reaches",
    {
      backend: { type: "cloud-hypervisor" },
      network: { passt: true },
      nfsMountPort: 20048,
      guestAccess: "nfs-only",
    },
    "guestAccess: not supported: passt keeps a guest from nothing that this host reaches; leave it out",
  ],
  [
    "an address that is none of passt's network",
    { backend: { type: "cloud-hypervisor" }, network: { passt: true }, ip: "10.20.1.9" },
    'ip: expected an address from 10.0.2.4 to 10.0.2.254, as the user network has them, got "10.20.1.9" (string)',
  ],
  [
    "passt in a VMM of someone else's",
    { backend: { type: "cloud-hypervisor", apiSocket: "/run/chv.sock" }, network: { passt: true } },
    "network.passt: not supported: the network of a VMM at backend.apiSocket is its owner's; leave it out",
  ],
  [
    "a socket that no address holds",
    { backend: { type: "cloud-hypervisor", apiSocket: `/${"a".repeat(107)}` } },
    `backend.apiSocket: expected an absolute path of at most 107 bytes, got "/${"a".repeat(78)}… (string)`,
  ],
  [
    "a snapshot that is restored onto a writable root",
    { backend: { type: "cloud-hypervisor" }, snapshotId: "s1", kernelArgs: ["ro", "rw"] },
    'acceptStaleRoot: expected true beside snapshotId: the NFS root is writable, and the restored guest goes on from the past, writing over what happened there since. Set it if the root is as it was then (a snapshot of it, a copy put in its place), or add "ro" to kernelArgs before the snapshot is taken, got nothing',
  ],
  [
    "fewer vCPUs at most than there are",
    { backend: { type: "cloud-hypervisor" }, vcpus: 4, maxVcpus: 2 },
    "maxVcpus: expected at least vcpus, which is 4, got 2",
  ],
  [
    "less memory at most than there is",
    { backend: { type: "cloud-hypervisor" }, memoryMiB: 512, maxMemoryMiB: 256 },
    "maxMemoryMiB: expected at least memoryMiB, which is 512, got 256",
  ],
  [
    "a server of another protocol",
    { backend: { type: "arrakis", url: "ftp://10.0.0.1" } },
    'backend.url: expected a URL such as http://127.0.0.1:7000, https://HOST:PORT or unix:///run/microvm.sock, without user and query, got "ftp://10.0.0.1" (string)',
  ],
  [
    "a snapshot on qemu",
    { snapshotId: "s1" },
    "snapshotId: not supported: the qemu back end restores no snapshots; leave it out",
  ],
  [
    "a stale root on qemu",
    { acceptStaleRoot: true },
    "acceptStaleRoot: not supported: the qemu back end restores no snapshots; leave it out",
  ],
  [
    "a bridge on qemu",
    { network: { bridge: "br0" } },
    "network: not supported: the qemu back end runs on QEMU's user network, without a bridge; leave it out",
  ],
  [
    "a network with an unknown field",
    { network: { bridge_name: "br0" } },
    'network: expected an object { bridge?, tap?, subnet? } or { passt: true }, got the unknown field "bridge_name"',
  ],
  [
    "room for vCPUs on qemu",
    { maxVcpus: 4 },
    "maxVcpus: not supported: the qemu back end changes vcpus by a replace; leave it out",
  ],
  [
    "room for memory on qemu",
    { maxMemoryMiB: 1024 },
    "maxMemoryMiB: not supported: the qemu back end changes memoryMiB by a replace; leave it out",
  ],
  [
    "a configFile that is not absolute",
    { configFile: "config.yaml" },
    'configFile: expected an absolute path, got "config.yaml" (string)',
  ],
  [
    "a configFile that is not there",
    { configFile: "/nonexistent/config.yaml" },
    "configFile: expected a readable YAML file at /nonexistent/config.yaml, got: ENOENT: no such file or directory, open '/nonexistent/config.yaml'",
  ],
  [
    "a preflight mode of another kind",
    { preflight: false },
    'preflight: expected one of "error", "warn", "off", got false (boolean)',
  ],
];

describe("bad input", () => {
  it.each(cases)("is refused by name: %s", async (_, changes, message) => {
    expect(await messagesOf({ ...nfsInputs, ...changes })).toEqual([message]);
  });

  it("has at least 60 named cases, each of its own", () => {
    expect(new Set(cases.map(([what]) => what)).size).toBe(cases.length);
    expect(cases.length).toBeGreaterThanOrEqual(60);
  });
});
