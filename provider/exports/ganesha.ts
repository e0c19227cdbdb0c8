/** The server of a directory: nfs-ganesha with a configuration of ours. */

import { mkdir, writeFile } from "node:fs/promises";
import { dirname } from "node:path";

import { MicroVmError } from "../errors.js";
import { findProgram } from "../host/program.js";
import { storageError } from "../host/storage.js";
import type { ServerProgram } from "./agentfs.js";
import type { ExportPaths } from "./paths.js";
import type { GaneshaServing, ServingPlace } from "./record.js";

const PACKAGES = {
  "ganesha.nfsd": "nfs-ganesha",
  rpcbind: "rpcbind",
  unshare: "util-linux",
  setpriv: "util-linux",
} as const;

/**
 * Makes sure that this host can run the server.
 *
 * @throws MicroVmError `host-unusable`
 */
export function assertGanesha(): void {
  if (process.getuid?.() !== 0) {
    throw new MicroVmError(
      "host-unusable",
      "an NfsExport takes root: nfs-ganesha opens files by their handles (CAP_DAC_READ_SEARCH). Run pulumi as root, or serve the directory by an AgentFs, which takes no rights",
      { input: "directory" },
    );
  }
  for (const [program, name] of Object.entries(PACKAGES)) {
    findProgram(program, `install the package ${name} (Debian and Ubuntu: apt-get install ${name})`);
  }
}

const SQUASH = { none: "No_Root_Squash", root: "Root_Squash", all: "All_Squash" } as const;

/**
 * The configuration: see ganesha-core-config(8), ganesha-export-config(8). Nobody but the clients has access. The export's id is fixed,
 * so that file handles outlive a restart of the server.
 */
export function ganeshaConfiguration(
  { directory, readOnly, squash, allowedClients }: GaneshaServing,
  { address, port, mountPort }: ServingPlace,
): string {
  return `# Written by pulumi-microvm, anew with every start of this server.
NFS_CORE_PARAM {
  Protocols = 3;
  Bind_addr = ${address};
  NFS_Port = ${port};
  MNT_Port = ${mountPort};
  Enable_UDP = false;
  Enable_NLM = false;
  Enable_RQUOTA = false;
  mount_path_pseudo = false;
}
# What is changed beside the server shows after a second, not after a minute.
EXPORT_DEFAULTS { Attr_Expiration_Time = 1; }
EXPORT {
  Export_Id = 1;
  Path = "${directory}";
  Pseudo = "/export";
  Access_Type = None;
  Protocols = 3;
  Transports = TCP;
  SecType = sys;
  CLIENT {
    Clients = ${allowedClients.join(", ")};
    Access_Type = ${readOnly ? "RO" : "RW"};
    Squash = ${SQUASH[squash]};
    Protocols = 3;
  }
  FSAL { Name = VFS; }
}
`;
}

/** Writes the configuration. */
export async function writeConfiguration(
  { configuration }: ExportPaths,
  serving: GaneshaServing,
  place: ServingPlace,
): Promise<void> {
  try {
    await mkdir(dirname(configuration), { recursive: true, mode: 0o700 });
    await writeFile(configuration, ganeshaConfiguration(serving, place), { mode: 0o600 });
  } catch (error) {
    throw storageError(error, `write ${configuration}`);
  }
}

/**
 * Ganesha 4 looks its Bind_addr up as IPv6 with AI_ADDRCONFIG (getaddrinfo(3)), which fails where the host has no IPv6 address but its
 * loopback's; it then takes the bytes of an IPv4 address for one of IPv6, and listens everywhere (without any address but the
 * loopback's it does not start). So such a host is lent an address while ganesha starts, by these lines of a shell: on its loopback,
 * of use to nobody, gone by itself after 5 s. Where that cannot be, listening.ts finds it out.
 */
export const LEND_ADDRESS = `grep -qsv ' lo$' /proc/net/if_inet6 ||
  ip -6 address replace fe80::6d76/128 dev lo nodad valid_lft 5 preferred_lft 0 2>/dev/null || true`;

/**
 * Ganesha 4 registers with rpcbind or does not start. It gets one that nobody else sees, in a network of its own, reached over its
 * unix socket in a private /run: port 111 of the host stays as it is, and no service of the distribution is needed or disturbed.
 * rpcbind drops its rights, and with them its parent-death signal: so it lives in a process namespace whose first process keeps it.
 *
 * Ganesha reads the mounts from /etc/mtab, which a system that has never booted may lack.
 */
const START = `
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/rpcbind
if [ ! -e /etc/mtab ]; then
  mkdir /run/etc /run/work
  mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc
  ln -s /proc/self/mounts /etc/mtab
fi
setpriv --pdeathsig KILL unshare --net --pid --fork --kill-child sh -c 'rpcbind -f -w & wait' &
tries=0
until [ -S /run/rpcbind.sock ]; do
  tries=$((tries + 1))
  [ $tries -lt 200 ] || { echo "rpcbind does not start" >&2; exit 1; }
  sleep 0.05
done
${LEND_ADDRESS}
exec ganesha.nfsd -F -f "$1" -L "$2" -p /run/ganesha.pid
`;

/** The command of the server: each program in front of it becomes the next, so that the process is ganesha's own in the end. */
export function ganeshaServer({ configuration, log }: ExportPaths): ServerProgram {
  return {
    file: "unshare",
    args: ["--mount", "--propagation", "private", "/bin/sh", "-euc", START, "sh", configuration, log],
  };
}

/** Whether ganesha's log says that it goes on without the export, which is also what it does without the package nfs-ganesha-vfs. */
export function isUnexported(log: string): boolean {
  return /Could not create export|init_export_root :EXPORT :CRIT/.test(log);
}

/** What ganesha tells of each start on a host without D-Bus and Kerberos, beside the account of what it does. */
const NOISE = / :EVENT :|:DBUS :|dbus|RADOS|krb5|keytab|credentials for principal/;

/** Whether a line of its log may tell why something failed. */
export function isComplaint(line: string): boolean {
  return line.trim() !== "" && !NOISE.test(line);
}
