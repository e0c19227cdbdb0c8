/**
 * The user network of a VM by passt(1), a process beside the VMM: it takes no rights, and ends with the VMM. It is known by the path of
 * its socket, which carries the instance.
 */

import { execFile } from "node:child_process";
import { promisify } from "node:util";

import type { BootConfiguration, PortForward, UserLink } from "../../boot/boot.js";
import { MicroVmError } from "../../errors.js";
import { checkedInstance, vmPaths } from "../paths.js";
import { endProcess, findByArgument, type ProcessIdentity } from "../process.js";
import { findProgram } from "../program.js";
import { spawnDetached } from "../spawn.js";

/** Its log is small. */
const LOG_LIMIT_MIB = 1;

/** The VM that it serves. */
export interface PasstVm {
  readonly stateDirectory: string;
  readonly vmName: string;
  readonly boot: Pick<BootConfiguration, "portForwards">;
}

/**
 * The path of a passt that can serve Cloud Hypervisor: `PASST`, else `passt` on PATH.
 *
 * @throws MicroVmError `host-unusable` when there is none, or one without vhost-user (it came in December 2024).
 */
export async function passtProgram(env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const hint = "install the package passt, or leave network.passt out to have a bridge and a tap made";
  const path = findProgram(env["PASST"] || "passt", hint, env);
  if (await hasVhostUser(path)) return path;
  throw new MicroVmError(
    "host-unusable",
    `expected a passt with --vhost-user (of December 2024 or later), and ${path} has not; name a later one by PASST, or leave network.passt out`,
    { input: "network.passt" },
  );
}

async function hasVhostUser(path: string): Promise<boolean> {
  try {
    const { stdout, stderr } = await promisify(execFile)(path, ["--help"], { timeout: 10_000 });
    return `${stdout}${stderr}`.includes("--vhost-user");
  } catch (error) {
    // An older one may end its help with an error.
    const said = error as { readonly stdout?: string; readonly stderr?: string };
    return `${said.stdout ?? ""}${said.stderr ?? ""}`.includes("--vhost-user");
  }
}

/**
 * Its arguments (passt(1)): the addresses of the link, this host's loopback at the gateway's, and the forwards. All in the open, nothing
 * taken over from this host.
 *
 * @param socket Absolute path.
 */
export function passtArguments(
  socket: string,
  { guestAddress, gatewayAddress, prefixLength = 24, nameServers }: UserLink,
  forwards: readonly PortForward[],
): string[] {
  const [nameServer] = nameServers;
  const ids = [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
  const settings: readonly (readonly [option: string, value: string | undefined])[] = [
    // Else root becomes nobody, whose process this one would not know for its own. It gives up all capabilities in any case.
    ["--runas", ids.join(":")],
    ["--socket", socket],
    ["--address", guestAddress],
    ["--netmask", String(prefixLength)],
    ["--gateway", gatewayAddress],
    ["--map-host-loopback", gatewayAddress],
    ["--dns-forward", nameServer],
    ...forwards.map(
      ({ protocol, hostAddress, hostPort, guestPort }) =>
        [
          protocol === "tcp" ? "--tcp-ports" : "--udp-ports",
          `${hostAddress}/${hostPort}:${guestPort}`,
        ] as const,
    ),
  ];
  return [
    "--vhost-user",
    "--foreground",
    "--one-off", // ends with the VMM
    "--ipv4-only",
    ...settings.flatMap(([option, value]) => (value === undefined ? [] : [option, value])),
  ];
}

/**
 * Starts it, after {@link endPasst}.
 *
 * @throws MicroVmError as {@link passtProgram}, and `vmm-failed` with its words when it ends at once.
 */
export async function startPasst(socket: string, link: UserLink, vm: PasstVm): Promise<void> {
  await spawnDetached({
    file: await passtProgram(),
    args: passtArguments(socket, link, vm.boot.portForwards),
    log: vmPaths(vm.stateDirectory, vm.vmName).passtLog,
    makes: socket,
    fileSizeLimitMiB: LOG_LIMIT_MIB,
  });
}

/** The processes of an instance. */
export function passtsOf(instance: string): ProcessIdentity[] {
  return findByArgument(`/${checkedInstance(instance)}.net`);
}

/** Ends it. Idempotent. */
export async function endPasst(instance: string): Promise<void> {
  for (const identity of passtsOf(instance)) await endProcess(identity, 0);
}
