/** The short folder for unix sockets and leases: gone after a reboot, as what it names is. */

import type { Stats } from "node:fs";
import { lstat, mkdir, rm, rmdir, stat } from "node:fs/promises";
import { isAbsolute, join } from "node:path";

import { MicroVmError, messageOf, systemCodeOf } from "../errors.js";
import { checkedInstance } from "./paths.js";
import { isAbsent, isOccupied, leadsNowhere } from "./storage.js";

const FOLDER = "pulumi-microvm";

/** unix(7): sun_path has 108 bytes, and QEMU wants the closing NUL inside. */
const SOCKET_PATH_BYTES = 107;

/**
 * `$XDG_RUNTIME_DIR/pulumi-microvm` where that folder is this user's, else `/run/pulumi-microvm` for root, else
 * `/tmp/pulumi-microvm-UID`; made (mode 0700) when it is not there.
 *
 * @throws MicroVmError `host-unusable` when it is a symbolic link, no folder, another user's, or open to others.
 */
export async function runtimeDirectory(env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const path = await choose(env);
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if (systemCodeOf(error) !== "EEXIST") {
      throw new MicroVmError(
        "host-unusable",
        `cannot make the folder for sockets, ${path}: ${messageOf(error)}; set XDG_RUNTIME_DIR to a folder of your own`,
        { cause: error },
      );
    }
  }
  const { uid, mode } = await lstat(path).then((found) => {
    if (found.isDirectory()) return found; // lstat: a symbolic link is no folder
    throw unusable(path, "is no folder");
  });
  if (uid !== process.getuid?.()) throw unusable(path, `belongs to user ${uid}`);
  if ((mode & 0o077) !== 0) {
    throw unusable(path, `is open to other users (mode ${(mode & 0o7777).toString(8)}, expected 700)`);
  }
  return path;
}

/**
 * The path of an instance's control socket, `RUNTIME/<instance>.sock`: it carries the instance, so that
 * `findByArgument(path)` finds the VMM of this instance and no other.
 *
 * @throws MicroVmError `host-unusable` when it is longer than the 107 bytes of unix(7), as
 * {@link runtimeDirectory} besides.
 */
export async function controlSocketPath(
  instance: string,
  env: NodeJS.ProcessEnv = process.env,
): Promise<string> {
  const path = join(await runtimeDirectory(env), socketName(instance));
  const bytes = Buffer.byteLength(path);
  if (bytes <= SOCKET_PATH_BYTES) return path;
  throw new MicroVmError(
    "host-unusable",
    `a path of a unix socket has at most ${SOCKET_PATH_BYTES} bytes, and ${path} has ${bytes}; set XDG_RUNTIME_DIR to a shorter folder`,
  );
}

/** What lies beside a control socket, for VMMs that make it; all absolute. */
export interface SocketPaths {
  readonly control: string;
  /** Cloud Hypervisor locks its socket by a file beside it, and leaves that. */
  readonly lock: string;
  /** Folder of the vsock alone, so that a sandboxed VMM need be let into no other. */
  readonly vsockDirectory: string;
  readonly vsock: string;
  /** Where passt meets the VMM. */
  readonly network: string;
}

/** The paths of a VM's sockets, from that of its control socket. */
export function socketPaths(controlSocket: string): SocketPaths {
  const vsockDirectory = controlSocket.replace(/\.sock$/, ".vs");
  return {
    control: controlSocket,
    lock: `${controlSocket}.lock`,
    vsockDirectory,
    vsock: join(vsockDirectory, "s"), // no longer than the control socket's own path
    network: controlSocket.replace(/\.sock$/, ".net"),
  };
}

/** The instance that has a vsock at this path; undefined where none of ours has. */
export function instanceOfVsock(path: string): string | undefined {
  return /\/([0-9a-f]{16})\.vs\/s$/.exec(path)?.[1];
}

/** Removes the sockets of a VMM that has ended. Idempotent; a record that names another kind of file removes nothing. */
export async function removeSockets(controlSocket: string): Promise<void> {
  const { control, lock, vsockDirectory, vsock, network } = socketPaths(controlSocket);
  if (!control.endsWith(".sock")) return;
  await removeIf(control, (found) => found.isSocket());
  await removeIf(lock, (found) => found.isFile() && found.size === 0);
  await removeIf(vsock, (found) => found.isSocket());
  await removeIf(network, (found) => found.isSocket());
  try {
    await rmdir(vsockDirectory);
  } catch (error) {
    if (!isAbsent(error) && !isOccupied(error)) throw error; // there is none, or it is another's
  }
}

async function removeIf(path: string, isOurs: (found: Stats) => boolean): Promise<void> {
  try {
    if (isOurs(await lstat(path))) await rm(path, { force: true });
  } catch (error) {
    if (!leadsNowhere(error)) throw error;
  }
}

/** The name of an instance's control socket, in whatever folder it is. */
export function socketName(instance: string): string {
  return `${checkedInstance(instance)}.sock`;
}

async function choose(env: NodeJS.ProcessEnv): Promise<string> {
  const base = env["XDG_RUNTIME_DIR"];
  if (base !== undefined && isAbsolute(base) && (await isOwn(base))) return join(base, FOLDER);
  const uid = process.getuid?.();
  return uid === 0 ? join("/run", FOLDER) : join("/tmp", `${FOLDER}-${uid}`);
}

/** After su or sudo the variable may still name another user's folder, or one that is gone. */
async function isOwn(path: string): Promise<boolean> {
  try {
    return (await stat(path)).uid === process.getuid?.();
  } catch (error) {
    if (isAbsent(error) || systemCodeOf(error) === "EACCES") return false;
    throw error;
  }
}

function unusable(path: string, found: string): MicroVmError {
  return new MicroVmError(
    "host-unusable",
    `the folder for sockets, ${path}, ${found}; remove it, or set XDG_RUNTIME_DIR to a folder of your own`,
  );
}
