/**
 * One zod schema per input. A schema's message completes the sentence "expected …, got …", so that every
 * rejection names the input, what was expected and what was found (see check.ts).
 */

import { isIPv4 } from "node:net";
import { z } from "zod";
import { hostPlaceOf } from "../boot/tap-link.js";

const integer = (min: number, max: number, error = `an integer from ${min} to ${max}`) => {
  return z.int({ error }).min(min, { error }).max(max, { error });
};

const boolean = z.boolean({ error: "true or false" });

const choice = <const T extends readonly [string, ...string[]]>(...values: T) =>
  z.enum(values, { error: `one of ${values.map((value) => `"${value}"`).join(", ")}` });

const matching = (expected: string, pattern: RegExp) =>
  z.string({ error: expected }).regex(pattern, { error: expected });

/** Printable ASCII without blanks, quotes and backslashes: what the kernel takes as one word as it stands. */
const WORD = /^[\x21\x23-\x26\x28-\x5b\x5d-\x7e]+$/;

/**
 * A host name as RFC 1123 section 2.1 has it: labels of 1 to 63 letters, digits and inner hyphens. A last label
 * of digits alone is a mistyped address.
 */
export const HOST_NAME =
  /^(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*(?=[a-z0-9-]*[a-z])[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.?$/i;

/** A path that goes into QEMU's options, Pulumi's state and log lines: absolute, no control characters. */
const hostPath = z
  .string({ error: "an absolute path" })
  .startsWith("/", { error: "an absolute path" })
  .refine((text) => Buffer.byteLength(text) <= 4095, { error: "a path of at most 4095 bytes (PATH_MAX)" })
  .regex(/^\P{Cc}*$/u, { error: "a path without control characters" });

const nfsServer = z
  .string({ error: "a host name or an IPv4 address" })
  .refine((text) => !text.includes(":"), {
    error: "an IPv4 address or a host name: nfsroot= takes no IPv6 address, and the port goes into nfsPort",
  })
  .refine((text) => isIPv4(text) || HOST_NAME.test(text), { error: "a host name or an IPv4 address" });

const nfsPath = z
  .string({ error: "an absolute path" })
  .startsWith("/", { error: "an absolute path" })
  .max(1024, { error: "a path of at most 1024 bytes (MNTPATHLEN, RFC 1813)" })
  .refine((text) => !text.includes("%"), { error: "a path without %: the kernel would substitute it" })
  .refine((text) => !text.split("/").includes(".."), { error: "a path without .. in it" })
  .regex(/^[\x21\x23-\x26\x28-\x2b\x2d-\x5b\x5d-\x7e]*$/, {
    error: "a path of printable ASCII without blanks, quotes, commas and backslashes",
  });

const nfsOptions = z
  .string({ error: "NFS mount options, separated by commas" })
  .regex(/^$|^[a-z0-9_]+(?:=[A-Za-z0-9_.:/-]+)?(?:,[a-z0-9_]+(?:=[A-Za-z0-9_.:/-]+)?)*$/, {
    error: "NFS mount options as option[=value], separated by commas, without blanks and quotes",
  });

const word = matching("a word of printable ASCII without blanks, quotes and backslashes", WORD);

const PORT_OR_RPCBIND = 'an integer from 1 to 65535, or "rpcbind"';
const nfsMountPort = z.union([integer(1, 65535, PORT_OR_RPCBIND), z.literal("rpcbind")], {
  error: PORT_OR_RPCBIND,
});

const DISK_SIZE = "0 for no disk, or an integer from 16 to 16777216";
const statefulDiskMiB = z.union([z.literal(0), integer(16, 16 * 1024 * 1024, DISK_SIZE)], {
  error: DISK_SIZE,
});

const ip = z
  .string({ error: '"static", "dhcp" or an IPv4 address' })
  .refine((text) => text === "static" || text === "dhcp" || isIPv4(text), {
    error: '"static", "dhcp" or an IPv4 address',
  });

const ipv4 = z
  .string({ error: "an IPv4 address" })
  .refine((text) => isIPv4(text), { error: "an IPv4 address" });

const portForward = z.strictObject(
  {
    hostPort: integer(1, 65535),
    guestPort: integer(1, 65535),
    protocol: choice("tcp", "udp").default("tcp"),
    hostAddress: ipv4.default("127.0.0.1"),
  },
  { error: "an object { hostPort, guestPort, protocol?, hostAddress? }" },
);

const consolePattern = z
  .string({ error: "a regular expression" })
  .min(1, { error: "a regular expression that is not empty" })
  .max(1024, { error: "a regular expression of at most 1024 characters" })
  .refine((text) => compiles(text), { error: "a regular expression that JavaScript can compile" });

function compiles(pattern: string): boolean {
  try {
    return Boolean(new RegExp(pattern));
  } catch {
    return false;
  }
}

const readiness = z.strictObject(
  {
    timeoutSeconds: integer(1, 86_400).default(120),
    console: consolePattern.optional(),
    required: boolean.optional(),
  },
  { error: "an object { timeoutSeconds?, console?, required? }" },
);

const qemu = z.strictObject(
  {
    type: z.literal("qemu"),
    machine: choice("q35", "microvm").default("q35"),
    accelerator: choice("auto", "kvm", "tcg").default("auto"),
    binary: hostPath.optional(),
  },
  { error: 'an object { type: "qemu", machine?, accelerator?, binary? }' },
);

/** unix(7): sun_path has 108 bytes, with the closing NUL. */
const SOCKET_PATH = "an absolute path of at most 107 bytes";
const socketPath = hostPath.refine((text) => Buffer.byteLength(text) <= 107, { error: SOCKET_PATH });

const cloudHypervisor = z.strictObject(
  { type: z.literal("cloud-hypervisor"), binary: hostPath.optional(), apiSocket: socketPath.optional() },
  { error: 'an object { type: "cloud-hypervisor", binary?, apiSocket? }' },
);

const SERVER_URL =
  "a URL such as http://127.0.0.1:7000, https://HOST:PORT or unix:///run/microvm.sock, without user and query";
/** What a header can carry of RFC 6750, section 2.1 (b64token). */
const TOKEN = "a bearer token of letters, digits and - . _ ~ + / =";

const arrakis = z.strictObject(
  {
    type: z.literal("arrakis"),
    url: z.string({ error: SERVER_URL }).refine(isServerUrl, { error: SERVER_URL }),
    token: z
      .string({ error: TOKEN })
      .regex(/^[A-Za-z0-9._~+/-]+=*$/, { error: TOKEN })
      .max(4096, { error: TOKEN })
      .optional(),
    caFile: hostPath.optional(),
  },
  { error: 'an object { type: "arrakis", url, token?, caFile? }' },
);

/** A user in a URL would be a secret in clear. */
function isServerUrl(text: string): boolean {
  if (!URL.canParse(text) || /[?#@\s]/.test(text)) return false;
  const { protocol, host, pathname } = new URL(text);
  if (protocol === "unix:") return host === "" && /^unix:\/\/\/[^/]/.test(text) && pathname.length <= 107;
  return (protocol === "http:" || protocol === "https:") && host !== "";
}

const backend = z.discriminatedUnion("type", [qemu, cloudHypervisor, arrakis], {
  error: 'an object whose type is "qemu", "cloud-hypervisor" or "arrakis"',
});

/** What the kernel (dev_valid_name, net/core/dev.c), ip(8) and nft(8) all take as it stands. */
export const interfaceName = matching(
  "a network interface name of at most 15 characters: letters, digits and _ . - after the first",
  /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/,
);

const SUBNET =
  "an IPv4 network of 8 to 30 bits such as 10.20.1.0/24 (or 10.20.1.1/24: the host's address on it)";

const network = z.strictObject(
  {
    bridge: interfaceName.optional(),
    tap: interfaceName.optional(),
    subnet: z
      .string({ error: SUBNET })
      .refine((text) => hostPlaceOf(text) !== undefined, { error: SUBNET })
      .optional(),
    passt: boolean.optional(),
  },
  { error: "an object { bridge?, tap?, subnet? } or { passt: true }" },
);

/** The schema of each input, by its public name. */
export const schemas = {
  vmName: matching(
    "one DNS label: 1 to 63 letters, digits and inner hyphens",
    /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/,
  ),
  kernel: hostPath,
  initramfs: hostPath,
  rootfs: hostPath,
  entryPoint: word.max(256, { error: "a word of at most 256 characters" }),
  snapshotId: word.max(256, { error: "a word of at most 256 characters" }),
  acceptStaleRoot: boolean,
  useNfsRoot: boolean,
  nfsServer,
  nfsPort: integer(1, 65535),
  nfsPath,
  nfsMountPort,
  nfsOptions,
  nfsExport: matching(
    "the id of an AgentFs or NfsExport, <name>/<16 hex digits>",
    /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\/[0-9a-f]{16}$/,
  ),
  kernelArgs: z.array(word, { error: "a list of words for the kernel command line" }),
  ip,
  vcpus: integer(1, 255),
  memoryMiB: integer(32, 16 * 1024 * 1024),
  maxVcpus: integer(1, 255),
  maxMemoryMiB: integer(32, 16 * 1024 * 1024),
  statefulDiskMiB,
  portForwards: z.array(portForward, { error: "a list of { hostPort, guestPort, protocol?, hostAddress? }" }),
  network,
  guestAccess: choice("internet", "nfs-only"),
  powerState: choice("running", "paused", "stopped"),
  readiness,
  shutdownTimeoutSeconds: integer(0, 3600),
  backend,
  configFile: hostPath,
  preflight: choice("error", "warn", "off"),
} as const;

/** Name of an input. */
export type InputName = keyof typeof schemas;

/** The values of inputs after validation, each absent where it was not given. */
export type InputValues = { -readonly [Name in InputName]?: z.output<(typeof schemas)[Name]> };
