/** A finding in words: which input, what was found, what to do. */

import type { NfsFinding, NfsTarget, Service } from "./finding.js";

/** What a person is told of a finding. */
export interface Description {
  /** The input to look at. */
  readonly input: "nfsServer" | "nfsPort" | "nfsMountPort" | "nfsPath" | "kernelArgs";
  /** One sentence of what was found and one of what to do, without the input's name. */
  readonly text: string;
}

const SERVER_NAMES = {
  nfsd: "an NFS server",
  mountd: "a mount service",
  rpcbind: "rpcbind",
} as const satisfies Record<Service, string>;

const SHOWN_EXPORTS = 10;
/** Of a path that a server has given. */
const SHOWN_CHARACTERS = 200;

/** The message for a finding about a target. Never throws, and holds no control characters. */
export function describe(finding: NfsFinding, target: NfsTarget): Description {
  const { input, text } = words(finding, target);
  return { input, text: printable(text) };
}

function words(finding: NfsFinding, target: NfsTarget): Description {
  const { server, path } = target;
  switch (finding.kind) {
    case "ok":
      return {
        input: "nfsServer",
        text: `${server}:${path} can be mounted, and ${finding.init.path} in it can run`,
      };
    case "refused":
      return {
        input: inputOf(finding.service),
        text: `nothing listens at ${at(finding, server)} (connection refused). ${startOrCorrect(finding.service)}`,
      };
    case "unreachable":
      return {
        input: "nfsServer",
        text: `${at(finding, server)} cannot be reached from this host (${finding.reason}). Correct the address, or the route to it`,
      };
    case "timed-out":
      return {
        input: finding.step === "connect" ? "nfsServer" : inputOf(finding.service),
        text: `${at(finding, server)} ${lateWords(finding)}. Check that the server is up and that no firewall drops TCP port ${finding.port}`,
      };
    case "disconnected":
      return {
        input: inputOf(finding.service),
        text: `${at(finding, server)} closed the connection ${finding.receivedBytes > 0 ? "in the middle of its answer" : "without an answer"} (${finding.step}). Check that this is the right port, and that the server accepts this host`,
      };
    case "not-rpc":
      return {
        input: inputOf(finding.service),
        text: `${at(finding, server)} does not answer as ${SERVER_NAMES[finding.service]} does: ${finding.found} (${finding.step}). ${startOrCorrect(finding.service)}`,
      };
    case "program-not-registered":
      return {
        input: inputOf(finding.program),
        text:
          finding.service === "rpcbind" && finding.program === "mountd"
            ? `rpcbind at ${server} port ${finding.port} knows no mount service version 3 over TCP. Start the NFS server's mountd, or set nfsMountPort to its port`
            : `the server at ${server} port ${finding.port} is not ${SERVER_NAMES[finding.program]} (RPC program unavailable). ${startOrCorrect(finding.program)}`,
      };
    case "version-mismatch":
      return {
        input: inputOf(finding.service),
        text: `${at(finding, server)} speaks version ${finding.lowest}${finding.highest === finding.lowest ? "" : ` to ${finding.highest}`}, and version ${finding.wanted} is needed. ${finding.service === "rpcbind" ? startOrCorrect("rpcbind") : "Switch NFS version 3 on in the server's configuration"}`,
      };
    case "rpc-denied":
      return {
        input: "nfsServer",
        text: `${at(finding, server)} rejected the call (${finding.reason}, ${finding.step}). ${finding.needsPrivilegedPort ? PRIVILEGED : "Allow AUTH_SYS (sec=sys) for this client on the server"}`,
      };
    case "rpc-error":
      return {
        input: inputOf(finding.service),
        text: `${at(finding, server)} could not carry out ${finding.step} (${finding.status}). See the server's log`,
      };
    case "export-unknown":
      return {
        input: "nfsPath",
        text: `${server} does not export ${quoted(path)}${finding.status === "MNT3ERR_NOENT" ? "" : ", or not to this host"} (${finding.status}). ${offered(finding.exports)}`,
      };
    case "access-denied":
      return deniedWords(finding, target);
    case "security-flavor":
      return {
        input: "nfsPath",
        text: `${server}:${path} is exported only with security flavors ${finding.flavors.join(", ")}, and an NFS root needs AUTH_SYS. Export it with sec=sys`,
      };
    case "not-a-directory":
      return {
        input: "nfsPath",
        text: `${server}:${path} is no directory. Export the folder that holds the guest's root file system`,
      };
    case "stale":
      return {
        input: "nfsServer",
        text: `${server} calls its own file handle stale (${finding.status}, ${finding.step}). It was restarted or the folder was replaced: run again, and re-export if it stays so`,
      };
    case "nfs-error":
      return {
        input: "nfsPath",
        text: `${server}:${path} answered ${finding.step} with ${finding.status}. See the server's log`,
      };
    case "init-missing":
      return {
        input: inputOfInit(finding.asked),
        text: `${server}:${path} holds no init program: ${finding.tried.join(", ")} not found (${shortened(finding.missing)} is missing). ${finding.asked ? "Correct init=, or put the program there" : "Put one there, or name another with init=/path in kernelArgs"}`,
      };
    case "init-not-executable":
      return {
        input: inputOfInit(finding.asked),
        text: `${finding.path} in ${server}:${path} cannot be run by the kernel: ${finding.why}. Put a program for the guest there, executable, or name another with init=/path in kernelArgs`,
      };
    case "init-wrong-arch":
      return {
        input: inputOfInit(finding.asked),
        text: `${finding.path} in ${server}:${path} is a program for ${finding.found}, and the guest is ${finding.expected}. Export a root file system made for ${finding.expected}`,
      };
    case "interpreter-missing":
      return {
        input: inputOfInit(finding.asked),
        text: `${finding.path} in ${server}:${path} needs ${shortened(finding.interpreter)}, which is not there. Put it there, or use a statically linked program`,
      };
    default:
      return unknownKind(finding);
  }
}

const PRIVILEGED =
  "It answers only source ports below 1024, and a guest behind QEMU's user network has none: allow others (`insecure` in /etc/exports, `PrivilegedPort = false` in ganesha)";

function deniedWords(
  finding: Extract<NfsFinding, { kind: "access-denied" }>,
  { server, path }: NfsTarget,
): Description {
  const status = `${finding.status}, ${finding.step}`;
  if (finding.needsPrivilegedPort) {
    return { input: "nfsServer", text: `${server}:${path} denies access (${status}). ${PRIVILEGED}` };
  }
  if (finding.step !== "MNT") {
    return {
      input: "nfsPath",
      text: `${server}:${path} denies root the access to ${shortened(finding.at)} (${status}). Export it without root squashing (no_root_squash), or make it readable for all`,
    };
  }
  return {
    input: "nfsServer",
    text: `${server} denies this host the mount of ${quoted(path)} (${status}). Allow this host's address for the export on the server`,
  };
}

function offered(exports: readonly string[] | undefined): string {
  if (exports === undefined) return "Give the path of an export (the server does not list its exports)";
  if (exports.length === 0) return "It exports nothing: add the folder to its exports";
  const more = exports.length - SHOWN_EXPORTS;
  const list = exports
    .slice(0, SHOWN_EXPORTS)
    .map((path) => quoted(shortened(path)))
    .join(", ");
  return `It exports ${list}${more > 0 ? ` and ${more} more` : ""}: give one of these, or add the folder to its exports`;
}

function lateWords(finding: Extract<NfsFinding, { kind: "timed-out" }>): string {
  const seconds = Number(finding.seconds.toFixed(2));
  const time =
    finding.bound === "step" ? `within ${seconds} s` : `before the ${seconds} s of the probe were over`;
  if (finding.step === "connect") return `did not accept a connection ${time}`;
  return finding.receivedBytes > 0
    ? `began an answer to ${finding.step} and did not finish it ${time}`
    : `did not answer ${finding.step} ${time}`;
}

function at({ service, port }: { service: Service; port: number }, server: string): string {
  return `${server} port ${port} (${service})`;
}

function startOrCorrect(service: Service): string {
  switch (service) {
    case "nfsd":
      return "Start the NFS server, or give the TCP port that it listens on";
    case "mountd":
      return "Start the server's mount service, or give its TCP port (for AgentFS the same as nfsPort)";
    case "rpcbind":
      return "Start rpcbind on the server, or set nfsMountPort to the port of its mount service";
    default:
      return unknownKind(service);
  }
}

function inputOf(service: Service): Description["input"] {
  return service === "nfsd" ? "nfsPort" : "nfsMountPort";
}

function inputOfInit(asked: boolean): Description["input"] {
  return asked ? "kernelArgs" : "nfsPath";
}

function quoted(path: string): string {
  return JSON.stringify(path);
}

function shortened(path: string): string {
  const characters = Array.from(path);
  return characters.length > SHOWN_CHARACTERS ? `${characters.slice(0, SHOWN_CHARACTERS).join("")}…` : path;
}

function unknownKind(kind: never): never {
  throw new TypeError(`no such kind: ${JSON.stringify(kind)}`);
}

/** A server's words may hold anything; a terminal gets none of it raw. */
function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\u{FFFD}");
}
