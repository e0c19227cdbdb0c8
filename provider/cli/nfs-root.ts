/** How a person names an NFS root in one word: `HOST:PORT:PATH`, or `HOST:PORT+MOUNTPORT:PATH`. */

import { MicroVmError, shown } from "../errors.js";

/** A root file system on an NFS server. */
export interface NfsRoot {
  /** Host name or IPv4 address. */
  readonly server: string;
  /** TCP port of nfsd. */
  readonly port: number;
  /** TCP port of mountd, where it is named. */
  readonly mountPort?: number;
  /** Absolute path of the export. */
  readonly path: string;
}

/**
 * Reads `HOST:PORT:PATH` or `HOST:PORT+MOUNTPORT:PATH`.
 *
 * @param name What the word was given by: an option or a variable.
 * @throws MicroVmError `invalid-input` when it is neither.
 */
export function parseNfsRoot(text: string, name: string): NfsRoot {
  const found = /^([^:]+):(\d{1,5})(?:\+(\d{1,5}))?:(\/.*)$/.exec(text);
  const [, server, port, mountPort, path] = found ?? [];
  const ports = [port, mountPort].filter((given) => given !== undefined).map(Number);
  if (server === undefined || path === undefined || ports.some((given) => given < 1 || given > 65_535)) {
    throw new MicroVmError(
      "invalid-input",
      `expected HOST:PORT:PATH (or HOST:PORT+MOUNTPORT:PATH), found ${shown(text)}`,
      { input: name },
    );
  }
  return { server, port: Number(port), path, ...(mountPort ? { mountPort: Number(mountPort) } : {}) };
}

/** The word that {@link parseNfsRoot} reads; without `+MOUNTPORT` where mountd is at nfsd's port, or the port mapper tells its own. Pure. */
export function nfsRootWord({ server, port, mountPort, path }: NfsRoot): string {
  const mount = mountPort === undefined || mountPort === port ? "" : `+${mountPort}`;
  return `${server}:${port}${mount}:${path}`;
}
