/** What a guest's own list of mounts says of its root. Pure. */

import { posix } from "node:path";

import type { StartVmRequest } from "../../server/wire.js";

/** The root that a guest must show. */
export type RootClaim =
  | {
      readonly type: "nfs";
      /** IPv4 address as the guest sees it; absent when only the server knows it. */
      readonly address?: string;
      readonly port: number;
      readonly path: string;
    }
  | { readonly type: "disk" };

/** A line of /proc/mounts (proc_pid_mounts(5), fstab(5)). */
export interface Mount {
  readonly source: string;
  readonly type: string;
  /** By name; of one without a value, the value is empty. */
  readonly options: ReadonlyMap<string, string>;
  readonly line: string;
}

/** What the request asks for, as the guest will see it. */
export function claimOf(start: StartVmRequest, bootedCmdline: string | undefined): RootClaim {
  if (start.useNfsRoot !== true) return { type: "disk" };
  const address = addressIn(bootedCmdline) ?? start.nfsServer;
  return {
    type: "nfs",
    port: start.nfsPort ?? NFS_PORT,
    path: start.nfsPath ?? "/",
    ...(address === undefined ? {} : { address }),
  };
}

/** Where the guest was told to mount from: nfsroot=ADDRESS:PATH,… (Documentation/admin-guide/nfs/nfsroot.rst of the kernel). */
function addressIn(cmdline: string | undefined): string | undefined {
  return / nfsroot=([0-9.]+):/.exec(cmdline ?? "")?.[1];
}

/** The port of NFS itself: a mount there names none (RFC 7530 section 3.1). */
const NFS_PORT = 2049;

/** The root of a guest: of several mounts at `/`, the last one is seen. Undefined where the text names none. */
export function rootMount(mounts: string): Mount | undefined {
  const found = mounts.split("\n").map(mountOf);
  return found.findLast((mount) => mount?.point === "/");
}

function mountOf(line: string): (Mount & { readonly point: string }) | undefined {
  const [source, point, type, options] = line.trim().split(" ").map(unescaped);
  if (source === undefined || point === undefined || type === undefined || options === undefined) {
    return undefined;
  }
  const byName = options.split(",").map((option): [string, string] => {
    const [name = "", ...value] = option.split("=");
    return [name, value.join("=")];
  });
  return { source, point, type, options: new Map(byName), line: line.trim() };
}

/** Blanks and backslashes stand there as octal numbers (getmntent(3)). */
function unescaped(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** File systems of a guest that has not come to its root yet. */
const beforeRoot: ReadonlySet<string> = new Set(["rootfs", "ramfs", "tmpfs"]);

/**
 * Why a mounted root is not the one that was asked for: `the guest's root is …, not …`; undefined when it is.
 */
export function differenceOf(claim: RootClaim, root: Mount): string | undefined {
  const found = `the guest's root is ${describe(root)}`;
  if (claim.type === "disk") {
    if (beforeRoot.has(root.type)) return `${found}, so it has not come to a disk`;
    return root.type.startsWith("nfs") ? `${found}, not a disk` : undefined;
  }
  const { address, port, path } = claim;
  const wanted = `${address ?? "the named server"}:${path} at port ${port} over NFS`;
  if (!root.type.startsWith("nfs")) return `${found}, not ${wanted}`;
  const isNamed =
    (address === undefined || (root.options.get("addr") ?? serverOf(root)) === address) &&
    Number(root.options.get("port") ?? NFS_PORT) === port &&
    pathOf(root) === posix.join(path, "/");
  return isNamed ? undefined : `${found}, not ${wanted}`;
}

function describe(root: Mount): string {
  if (!root.type.startsWith("nfs")) return `${root.source} (${root.type})`;
  return `${root.source} at port ${root.options.get("port") ?? NFS_PORT} over NFS`;
}

function serverOf({ source }: Mount): string {
  return source.slice(0, source.indexOf(":"));
}

function pathOf({ source }: Mount): string {
  return posix.join(source.slice(source.indexOf(":") + 1), "/");
}
