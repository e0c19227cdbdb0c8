/** What the REST server's config.yaml tells it; the file's schema is shared with `configFile` of a resource. */

import type { MicroVmError } from "../errors.js";
import { hostMemory } from "../preflight/memory.js";
import { readConfigDocument, type RestServerSection } from "../spec/config-document.js";
import { bootValues, guestPorts, networkOf, type GuestPort } from "../spec/config-file.js";

/** The REST server's configuration, defaults filled in; paths are absolute. */
export interface ServerConfig {
  /** The file. */
  readonly path: string;
  /** Address to listen at; the loopback address unless the file says otherwise. */
  readonly host: string;
  /** Port to listen at; 7000 by default. */
  readonly port: number;
  /** Folder of VMs and snapshots; absent for this user's own. */
  readonly stateDirectory?: string;
  readonly hypervisor: "cloud-hypervisor" | "qemu";
  /** `chv_bin`: Cloud Hypervisor's binary; absent when it is to be found on PATH, or with QEMU. */
  readonly hypervisorBinary?: string;
  /** Bridge of the guests; absent for the default one, or with QEMU, which has a network of its own for each guest. */
  readonly network?: { readonly bridge?: string; readonly subnet?: string };
  /** What a guest boots from when the request does not say; each absent where the file does not name it. */
  readonly boot: ReturnType<typeof bootValues>;
  /** Memory of each guest; absent where the file has no `guest_mem_percentage`. */
  readonly memoryMiB?: number;
  /** Ports of each guest that the host forwards to, each from a host port of its own. */
  readonly guestPorts: readonly GuestPort[];
  /** Port of the command server in the guest; 4031 by default. */
  readonly commandServerPort: number;
  readonly tokenFile?: string;
  /** Certificate and key for TLS, in PEM. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** `ready_console`: regular expression that a console line of a ready guest matches. */
  readonly readyConsole?: string;
  /** Keys that the file names and this hypervisor has no use for: the server says so when it starts. */
  readonly unused: readonly string[];
}

/** The bounds that Arrakis has for a guest's memory. */
const LEAST_MEMORY_MIB = 1024;
const MOST_MEMORY_MIB = 32_768;

/** What QEMU's user network and QEMU itself make of no use. */
const bridgeKeys = ["bridge_name", "bridge_ip", "bridge_subnet", "chv_bin"] as const;

/**
 * Reads the server's config.yaml.
 *
 * @param totalMemoryMiB Memory of this host, of which `guest_mem_percentage` is a part.
 * @throws MicroVmError `config-file`: the file, line and column, what was expected and what was found.
 */
export async function readServerConfig(path: string, totalMemoryMiB?: number): Promise<ServerConfig> {
  const { restserver: server, commandServerPort = 4031, refusal } = await readConfigDocument(path);
  const { hypervisor = "cloud-hypervisor", tls_cert: cert, tls_key: key } = server;
  if (cert === undefined && key !== undefined) throw refusal("tls_key", "tls_cert beside it");
  if (key === undefined && cert !== undefined) throw refusal("tls_cert", "tls_key beside it");
  const isQemu = hypervisor === "qemu";
  return {
    path,
    host: server.host ?? "127.0.0.1",
    port: server.port ?? 7000,
    stateDirectory: server.state_dir,
    hypervisor,
    hypervisorBinary: isQemu ? undefined : server.chv_bin,
    network: isQemu ? undefined : networkOf(server),
    boot: bootValues(server),
    memoryMiB: await memoryOf(server, refusal, totalMemoryMiB),
    guestPorts: guestPorts(server) ?? [],
    commandServerPort,
    tokenFile: server.token_file,
    tls: cert !== undefined && key !== undefined ? { cert, key } : undefined,
    readyConsole: server.ready_console,
    unused: isQemu ? bridgeKeys.filter((name) => server[name] !== undefined) : [],
  };
}

/** Arrakis' rule: so much of the host's memory, at most 32 GiB, and an error below 1 GiB. */
async function memoryOf(
  server: RestServerSection,
  refusal: (key: keyof RestServerSection, expected: string) => MicroVmError,
  given: number | undefined,
): Promise<number | undefined> {
  const percentage = server.guest_mem_percentage;
  if (percentage === undefined) return undefined;
  const total = given ?? (await hostMemory())?.totalMiB;
  if (total === undefined)
    throw refusal("guest_mem_percentage", "a host that tells its memory in /proc/meminfo");
  const memoryMiB = Math.floor((total * percentage) / 100);
  if (memoryMiB < LEAST_MEMORY_MIB) {
    const least = Math.ceil((LEAST_MEMORY_MIB * 100) / total);
    throw refusal(
      "guest_mem_percentage",
      `at least ${LEAST_MEMORY_MIB} MiB for a guest, ${least > 100 ? "more than this host has" : `${least} % here`} of ${total} MiB`,
    );
  }
  return Math.min(memoryMiB, MOST_MEMORY_MIB);
}
