/** The probe of an NFS export, as the guest's kernel will mount it. */

import { type Dialing, RpcConnection } from "./connection.js";
import { Deadline, type ProbeLimits } from "./deadline.js";
import { type Architecture, type NfsFinding, type NfsTarget, ProbeEnd } from "./finding.js";
import { findInit } from "./init.js";
import * as mount from "./mount.js";
import { decodePort, encodeMapping, getPort, RPCBIND_PORT } from "./portmap.js";
import { noCredential } from "./rpc.js";
import { credential, NfsSession } from "./session.js";

/** What is to be probed. */
export interface ProbeRequest extends NfsTarget {
  /** Path of the init program (the value of `init=`); by default what the kernel tries by itself. */
  readonly init?: string;
  /** The guest's processor; without it, programs for any are good. */
  readonly arch?: Architecture;
  /** Who starts init: the kernel (default), or an initramfs of ours, which is told apart by what it passes over. */
  readonly startedBy?: "kernel" | "initramfs";
  /**
   * How the guest's traffic reaches the server. `user` (default): from this host's address and any source port,
   * as QEMU's user network sends it. `routed`: from an address of its own and a source port below 1024. `bridged`: the same, and the
   * server is this host, at its address on the guest's bridge.
   */
  readonly guestNetwork?: "user" | "routed" | "bridged";
  /** Aborts the probe: the promise is rejected with the signal's reason. */
  readonly signal?: AbortSignal;
  /** 2 s a step and 5 s in all by default. */
  readonly limits?: ProbeLimits;
  /** TCP port of rpcbind, 111 by default. */
  readonly rpcbindPort?: number;
}

/**
 * Mounts the export over TCP as the guest's kernel will, looks for the init program, and unmounts. Never throws
 * but for an aborted `signal`: what the server does wrong is a finding. Takes at most 5 s and holds at most 1 MB.
 */
export async function probeNfs(request: ProbeRequest): Promise<NfsFinding> {
  const asGuest = (request.guestNetwork ?? "user") === "user";
  const { server, signal, limits } = request;
  const dialing: Dialing = {
    server,
    signal,
    deadline: new Deadline(limits),
    privilegedPort: !asGuest,
    asGuest,
    isThisHost: request.guestNetwork === "bridged",
  };
  const finding = await attempt(request, dialing);
  if (finding.kind !== "access-denied" && finding.kind !== "rpc-denied") return finding;
  // Only root can find out whether a privileged port makes the difference.
  if (dialing.privilegedPort || process.getuid?.() !== 0) return finding;
  const { kind } = await attempt(request, { ...dialing, privilegedPort: true });
  const needsPrivilegedPort = kind === "ok" || kind.startsWith("init-") || kind === "interpreter-missing";
  return { ...finding, needsPrivilegedPort };
}

async function attempt(request: ProbeRequest, dialing: Dialing): Promise<NfsFinding> {
  const open: RpcConnection[] = [];
  try {
    return await converse(request, dialing, open);
  } catch (error) {
    if (error instanceof ProbeEnd) return error.finding;
    throw error;
  } finally {
    for (const connection of open) connection.close();
  }
}

async function converse(request: ProbeRequest, dialing: Dialing, open: RpcConnection[]): Promise<NfsFinding> {
  const { path } = request;
  const nfsd = await RpcConnection.open("nfsd", request.port, dialing);
  open.push(nfsd);
  const session = new NfsSession(nfsd, dialing.asGuest);
  await session.ping();

  const mountPort =
    request.mountPort === "rpcbind" ? await askRpcbind(request, dialing, open) : request.mountPort;
  // A connection of its own even where both listen on one port, so that a finding names the right service.
  const mountd = await RpcConnection.open("mountd", mountPort, dialing);
  open.push(mountd);
  await mountd.call({
    step: "NULL",
    procedure: mount.mountNull,
    credential: noCredential,
    args: Buffer.alloc(0),
    decode: () => undefined,
  });

  const args = mount.encodePath(path);
  const mounted = await mountd.call({
    step: "MNT",
    procedure: mount.mnt,
    credential,
    args,
    decode: mount.decodeMount,
  });
  if (mounted.fileHandle === undefined) return refusedMount(mounted.status, path, mountd, dialing.asGuest);
  try {
    if (!allowsAuthSys(mounted.flavors)) {
      return { kind: "security-flavor", certain: true, flavors: mounted.flavors };
    }
    const root = await session.node("/", mounted.fileHandle);
    if (root.attributes.type !== "directory") return { kind: "not-a-directory", certain: true };
    const init = await findInit(session, root, request);
    if ("kind" in init) return init;
    const rootFileHandle = mounted.fileHandle.toString("hex");
    return { kind: "ok", certain: true, mountPort, rootFileHandle, root: root.attributes, init };
  } finally {
    mountd.tell({ step: "UMNT", procedure: mount.umnt, credential, args });
  }
}

async function askRpcbind(
  { rpcbindPort = RPCBIND_PORT }: ProbeRequest,
  dialing: Dialing,
  open: RpcConnection[],
): Promise<number> {
  const rpcbind = await RpcConnection.open("rpcbind", rpcbindPort, dialing);
  open.push(rpcbind);
  const port = await rpcbind.call({
    step: "GETPORT",
    procedure: getPort,
    credential: noCredential,
    args: encodeMapping(mount.mnt),
    decode: decodePort,
  });
  const at = { certain: true, service: "rpcbind", port: rpcbindPort } as const;
  if (port === 0) throw new ProbeEnd({ kind: "program-not-registered", ...at, program: "mountd" });
  if (port > 65_535) {
    throw new ProbeEnd({ kind: "not-rpc", ...at, step: "GETPORT", found: `it names port ${port}` });
  }
  return port;
}

async function refusedMount(
  status: string,
  path: string,
  mountd: RpcConnection,
  asGuest: boolean,
): Promise<NfsFinding> {
  const step = "MNT";
  switch (status) {
    case "MNT3ERR_NOENT":
      return { kind: "export-unknown", certain: true, status, exports: await offeredExports(mountd) };
    case "MNT3ERR_ACCES":
    case "MNT3ERR_PERM": {
      const exports = await offeredExports(mountd);
      // Servers answer like this for what they do not export at all, too.
      if (exports !== undefined && !exports.some((directory) => covers(directory, path))) {
        return { kind: "export-unknown", certain: asGuest, status, exports };
      }
      return { kind: "access-denied", certain: asGuest, step, status, at: "/", needsPrivilegedPort: false };
    }
    case "MNT3ERR_NOTDIR":
      return { kind: "not-a-directory", certain: true };
    default:
      return { kind: "nfs-error", certain: status === "MNT3ERR_NAMETOOLONG", step, status };
  }
}

/** What EXPORT lists; undefined from a server that does not tell: the mount has failed already, this is only advice. */
async function offeredExports(mountd: RpcConnection): Promise<readonly string[] | undefined> {
  try {
    return await mountd.call({
      step: "EXPORT",
      procedure: mount.listExports,
      credential,
      args: Buffer.alloc(0),
      decode: mount.decodeExports,
    });
  } catch (error) {
    if (error instanceof ProbeEnd) return undefined;
    throw error;
  }
}

/** Whether an export holds a path: some servers let folders below an export be mounted. */
function covers(directory: string, path: string): boolean {
  const prefix = directory.replace(/\/*$/, "/");
  return `${path}/`.startsWith(prefix);
}

/** An empty list leaves it open; AUTH_NONE and AUTH_SYS are what an NFS root can give. */
function allowsAuthSys(flavors: readonly number[]): boolean {
  return flavors.length === 0 || flavors.includes(0) || flavors.includes(1);
}
