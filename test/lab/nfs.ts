/**
 * A real NFSv3 server for demo and tests: nfs-ganesha on loopback.
 *
 * Ganesha registers with rpcbind or does not start. Each server gets an rpcbind of its own that nobody else sees: in a
 * network of its own, reached over its unix socket in a private /run. So servers run side by side, port 111 of the
 * host stays as it is, and a service of the distribution is neither needed nor disturbed. Everything dies with the process that started it.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { LEND_ADDRESS } from "../../provider/exports/ganesha.js";
import { isOnPath } from "./programs.js";

/** One exported directory. */
export interface NfsExport {
  /** Absolute path of the directory. */
  readonly path: string;
  /** Its mount path; the directory's own by default. Of all exports of a server, or of none. */
  readonly as?: string;
  /** What clients may do; `RW` by default. `None`: a mount is denied. */
  readonly access?: "RW" | "RO" | "None";
}

/** What to serve, and where. */
export interface NfsServerOptions {
  readonly exports: readonly NfsExport[];
  /** IPv4 address of this host to bind; 127.0.0.1 by default. */
  readonly address?: string;
  /** TCP port of nfsd; one that is free on 127.0.0.1 by default. */
  readonly nfsPort?: number;
  /** TCP port of mountd; one that is free on 127.0.0.1 by default. */
  readonly mountPort?: number;
  /** Whether its rpcbind answers at port 111, for whom a test must be in a network namespace of its own. */
  readonly portMapper?: boolean;
}

/** A running server. */
export interface NfsServer {
  /** TCP port of nfsd. */
  readonly nfsPort: number;
  /** TCP port of mountd. */
  readonly mountPort: number;
  readonly pid: number;
  /** The server's own log so far. */
  log(): Promise<string>;
  /** Ends the server in an orderly way, by force after 10 s, and removes its files. Idempotent. */
  stop(): Promise<void>;
  /** Ends the server at once, as a crash would, and removes its files. Idempotent. */
  kill(): Promise<void>;
}

const READY_SECONDS = 20;
const STOP_SECONDS = 10;
/** ganesha goes on without an export that it cannot make. */
const NOT_EXPORTED = "Could not create export";

/** Why no server can be started here, as the reason of a skipped test; undefined when one can. */
export function whyNoNfsServer(): string | undefined {
  if (process.getuid?.() !== 0) return "an NFS server needs root";
  for (const program of ["ganesha.nfsd", "rpcbind", "unshare", "setpriv"]) {
    if (!isOnPath(program)) return `${program} is not installed`;
  }
  return undefined;
}

/** Starts a server and returns once it answers; throws with the server's log when it does not within 20 s. */
export async function startNfsServer(options: NfsServerOptions): Promise<NfsServer> {
  const reason = whyNoNfsServer();
  if (reason !== undefined) throw new Error(`no NFS server: ${reason}`);
  // A free port may be taken by another between asking and binding, so a few tries are made.
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await startOnce(options);
    } catch (error) {
      const chosenByUs = options.nfsPort === undefined || options.mountPort === undefined;
      if (attempt === 3 || !chosenByUs || !String(error).includes("Cannot bind")) throw error;
    }
  }
}

async function startOnce(options: NfsServerOptions): Promise<NfsServer> {
  const nfsPort = options.nfsPort ?? (await freePort());
  const mountPort = options.mountPort ?? (await freePort());
  const { address = "127.0.0.1" } = options;
  const folder = await mkdtemp(join(tmpdir(), "lab-nfs-"));
  const logFile = join(folder, "log");
  const configuration = join(folder, "ganesha.conf");
  await writeFile(configuration, ganeshaConfiguration(options.exports, address, nfsPort, mountPort));
  const log = () => readFile(logFile, "utf8").catch(() => "");

  const child = spawn(
    "setpriv",
    [...dieWithParent, "unshare", "--mount", "--propagation", "private", "sh", "-euc", START],
    {
      env: {
        ...process.env,
        CONFIGURATION: configuration,
        LOG: logFile,
        RPCBIND_NETWORK: options.portMapper === true ? "" : "--net",
      },
      stdio: ["ignore", "ignore", "pipe"],
      // Out of the terminal's process group: an interrupt must not take the root away from a guest that is powered off.
      detached: true,
    },
  );
  let stderr = "";
  child.stderr?.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  const exited = once(child, "exit");

  let ended: Promise<void> | undefined;
  const end = (signal: NodeJS.Signals): Promise<void> =>
    (ended ??= endProcess(child, exited, signal).then(() => rm(folder, { recursive: true, force: true })));

  const deadline = Date.now() + READY_SECONDS * 1000;
  // Both, since another server may be answering on these ports.
  const isUp = async (): Promise<boolean> =>
    (await log()).includes("NFS SERVER INITIALIZED") &&
    (await answers(address, nfsPort, 100003)) &&
    (await answers(address, mountPort, 100005));
  while (!(await isUp()) || (await log()).includes(NOT_EXPORTED)) {
    if (
      (await log()).includes(NOT_EXPORTED) ||
      child.exitCode !== null ||
      child.signalCode !== null ||
      Date.now() > deadline
    ) {
      const tail = (await log()).trimEnd().split("\n").filter(isComplaint).slice(-8).join("\n");
      await end("SIGKILL");
      throw new Error(`nfs-ganesha did not come up:\n${stderr}${tail}`);
    }
    await delay(50);
  }
  if (child.pid === undefined) throw new Error("nfs-ganesha has no process id");
  return { nfsPort, mountPort, pid: child.pid, log, stop: () => end("SIGTERM"), kill: () => end("SIGKILL") };
}

/** Whether a line of ganesha's log is more than an account of what it does. */
function isComplaint(line: string): boolean {
  return !line.includes(" :EVENT :");
}

const dieWithParent = ["--pdeathsig", "KILL"];

// rpcbind drops its rights, and with them its parent-death signal: so it lives in a process namespace whose first process keeps it.
const START = `
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/rpcbind
# ganesha reads the mounts from there; a system that has never booted may lack it.
if [ ! -e /etc/mtab ]; then
  mkdir /run/etc /run/work
  mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc
  ln -s /proc/self/mounts /etc/mtab
fi
setpriv --pdeathsig KILL unshare $RPCBIND_NETWORK --pid --fork --kill-child sh -c 'rpcbind -f -w & wait' &
tries=0
until [ -S /run/rpcbind.sock ]; do
  tries=$((tries + 1))
  [ $tries -lt 200 ] || { echo "rpcbind does not start" >&2; exit 1; }
  sleep 0.05
done
${LEND_ADDRESS}
exec ganesha.nfsd -F -f "$CONFIGURATION" -L "$LOG" -p /run/ganesha.pid
`;

/** See ganesha-core-config(8), ganesha-export-config(8), ganesha-cache-config(8). */
function ganeshaConfiguration(
  exports: readonly NfsExport[],
  address: string,
  nfsPort: number,
  mountPort: number,
): string {
  const core = `NFS_CORE_PARAM {
  Protocols = 3; Bind_addr = ${address}; NFS_Port = ${nfsPort}; MNT_Port = ${mountPort};
  Enable_UDP = false; Enable_NLM = false; Enable_RQUOTA = false; mount_path_pseudo = ${exports.some(({ as }) => as !== undefined)};
}
# Changes made beside the server, as tests make them, show at once.
EXPORT_DEFAULTS { Attr_Expiration_Time = 0; }
MDCACHE { Dir_Chunk = 0; }
`;
  const blocks = exports.map(
    ({ path, as, access = "RW" }, index) => `EXPORT {
  Export_Id = ${index + 1}; Path = "${path}"; Pseudo = "${as ?? `/export${index + 1}`}";
  Access_Type = ${access}; Squash = No_Root_Squash; Protocols = 3; Transports = TCP; SecType = sys; FSAL { Name = VFS; }
}
`,
  );
  return core + blocks.join("");
}

async function endProcess(
  child: ChildProcess,
  exited: Promise<unknown>,
  signal: NodeJS.Signals,
): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_SECONDS * 1000);
  await exited;
  clearTimeout(timer);
}

/** Whether version 3 of an ONC RPC program answers a NULL call (RFC 5531, section 9) on a TCP port within 1 s. */
export async function answers(host: string, port: number, program: number): Promise<boolean> {
  const words = [0x80000028, port, 0, 2, program, 3, 0, 0, 0, 0, 0];
  const call = Buffer.alloc(words.length * 4);
  words.forEach((word, index) => call.writeUInt32BE(word, index * 4));
  const socket = createConnection({ host, port, timeout: 1000 });
  return new Promise((resolve) => {
    const settle = (answered: boolean): void => {
      socket.destroy();
      resolve(answered);
    };
    socket.on("connect", () => socket.write(call));
    // The last word of an accepted reply is its state: 0 is SUCCESS.
    socket.on("data", (reply) => settle(reply.length === 28 && reply.readUInt32BE(24) === 0));
    socket.on("error", () => settle(false));
    socket.on("timeout", () => settle(false));
    socket.on("close", () => settle(false));
  });
}

/** A TCP port of 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("a TCP server without a port");
  return address.port;
}
