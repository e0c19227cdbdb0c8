/** How a person names an NFS root of their own: `HOST:PORT:PATH`, or `HOST:PORT+MOUNTPORT:PATH`. */

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

/** Reads `HOST:PORT:PATH` or `HOST:PORT+MOUNTPORT:PATH`; throws when it is neither. */
export function parseNfsRoot(text: string): NfsRoot {
  const found = /^([^:]+):(\d+)(?:\+(\d+))?:(\/.*)$/.exec(text);
  const [, server, port, mountPort, path] = found ?? [];
  if (server === undefined || path === undefined) {
    throw new Error(`MICROVM_NFS: expected HOST:PORT:PATH (or HOST:PORT+MOUNTPORT:PATH), found "${text}"`);
  }
  return { server, port: Number(port), path, ...(mountPort ? { mountPort: Number(mountPort) } : {}) };
}
