/** Who listens on a port of this host, and at which addresses, whatever a server was told. */

import { readdir, readlink } from "node:fs/promises";

import { isHidden, processIds, readOfProcess } from "../host/process.js";
import { isAbsent, readIfThere } from "../host/storage.js";

/** A socket that listens on a TCP port. */
interface Listener {
  /** Address in hex digits, those of IPv4 with the last byte first; all 0 for any. */
  readonly address: string;
  /** User id of its process. */
  readonly user: string;
  readonly inode: string;
}

/** A listening socket, of IPv4 or of both; state 0A is LISTEN (Documentation/networking/proc_net_tcp.rst). */
const LISTENER = /^ *\d+: ([0-9A-F]+):([0-9A-F]{4}) [0-9A-F]+:0000 0A \S+ \S+ \S+ +(\d+) +\d+ (\d+) .*$/gm;

async function listenersOf(port: number): Promise<Listener[]> {
  const texts = await Promise.all(["/proc/net/tcp", "/proc/net/tcp6"].map(readIfThere));
  // The second one is not there on a kernel without IPv6.
  return texts.flatMap((text = "") =>
    [...text.matchAll(LISTENER)].flatMap(([, address = "", hex = "", user = "", inode = ""]) =>
      parseInt(hex, 16) === port ? [{ address, user, inode }] : [],
    ),
  );
}

const isAnywhere = ({ address }: Listener): boolean => /^0+$/.test(address);

/** Whether something listens on a TCP port at every address of this host. */
export async function listensEverywhere(port: number): Promise<boolean> {
  return (await listenersOf(port)).some(isAnywhere);
}

/**
 * Who listens on a TCP port at an IPv4 address, as a message names it: a process, or, where another user's processes are not to be
 * seen, that user.
 */
export async function holderOf(address: string, port: number): Promise<string> {
  const bytes = address.split(".").map((byte) => Number(byte).toString(16).padStart(2, "0"));
  const hex = bytes.toReversed().join("").toUpperCase();
  const listeners = await listenersOf(port);
  const holder = listeners.find((listener) => isAnywhere(listener) || listener.address.endsWith(hex));
  if (holder === undefined) return "another program";
  return (await processWith(`socket:[${holder.inode}]`)) ?? `a program of user ${holder.user}`;
}

/** The process that has a file open, by what its descriptor leads to (proc_pid_fd(5)). */
async function processWith(target: string): Promise<string | undefined> {
  for (const pid of processIds()) {
    try {
      for (const descriptor of await readdir(`/proc/${pid}/fd`)) {
        if ((await linkOf(`/proc/${pid}/fd/${descriptor}`)) !== target) continue;
        const command = readOfProcess(pid, "comm");
        if (command !== undefined) return `process ${pid} (${command.trim()})`;
      }
    } catch (error) {
      if (!isHidden(error)) throw error;
    }
  }
  return undefined;
}

async function linkOf(path: string): Promise<string | undefined> {
  try {
    return await readlink(path);
  } catch (error) {
    if (isAbsent(error)) return undefined; // closed meanwhile
    throw error;
  }
}
