/** Arrakis' config.yaml as a source of inputs: `hostservices.restserver` of the file that `configFile` names. */

import { readConfigDocument, type RestServerSection } from "./config-document.js";
import type { InputName } from "./schema.js";

/** What a config.yaml says of inputs; each absent where the file does not name it. */
export type ConfigFileValues = { readonly [Name in InputName]?: unknown };

/**
 * Reads a config.yaml. Relative paths in it count from its own folder. Keys that concern the Arrakis server
 * alone (its address, its VMM) are left to it.
 *
 * @param hasBridge Whether the back end gives its guests a bridge: then the file's bridge and port forwards count.
 * @throws MicroVmError `config-file` as {@link readConfigDocument}.
 */
export async function readConfigFile(path: string, hasBridge = false): Promise<ConfigFileValues> {
  const { restserver } = await readConfigDocument(path);
  return {
    ...bootValues(restserver),
    ...(hasBridge
      ? { network: networkOf(restserver), portForwards: guestPorts(restserver)?.map(sameOnHost) }
      : {}),
  };
}

/** What the file says of what a guest boots from, under the names of the inputs. */
export function bootValues(server: RestServerSection) {
  return {
    kernel: server.kernel,
    rootfs: server.rootfs,
    initramfs: server.initramfs,
    useNfsRoot: server.nfs_enabled,
    nfsServer: server.nfs_server,
    nfsPort: server.nfs_port,
    nfsPath: server.nfs_path,
    statefulDiskMiB: server.stateful_size_in_mb,
  } as const;
}

/** The guests' network, as the input `network`; undefined where the file names none. */
export function networkOf(server: RestServerSection): { bridge?: string; subnet?: string } | undefined {
  const { bridge_name: bridge, bridge_ip: ip, bridge_subnet: of } = server;
  const subnet = ip === undefined || ip.includes("/") ? (ip ?? of) : `${ip}/${of?.split("/")[1] ?? ""}`;
  return bridge !== undefined || subnet !== undefined ? { bridge, subnet } : undefined;
}

/** A port of each guest that the host forwards to. */
export interface GuestPort {
  readonly guestPort: number;
  readonly description?: string;
}

/** `port_forwards`, port by port; undefined where the file has no such key. */
export function guestPorts(server: RestServerSection): readonly GuestPort[] | undefined {
  return server.port_forwards?.flatMap(({ port, description }) =>
    port.map((guestPort) => ({ guestPort, description })),
  );
}

function sameOnHost({ guestPort }: GuestPort) {
  return { hostPort: guestPort, guestPort };
}
