/**
 * The one error class of the package, and the table of everything that can go wrong.
 *
 * A message is for the person at the terminal: what was expected, what was found, what to do.
 * The table holds what is true of every error of a code; MESSAGES.md is generated from it.
 */

/** What every error of one code has in common. */
export interface ErrorKind {
  /** Why it happens, in one sentence. */
  readonly cause: string;
  /** What the person can do about it, in one sentence. */
  readonly remedy: string;
}

/** Every error code, with its cause and remedy. */
export const errorKinds = {
  "invalid-input": {
    cause: "An input of the program has a value that cannot be used.",
    remedy: "Change the named input as the message says.",
  },
  "not-supported": {
    cause: "The chosen back end cannot do what the input asks for.",
    remedy: "Leave the input out, or choose a back end that can.",
  },
  "config-file": {
    cause: "The file named by `configFile` cannot be read or holds something unusable.",
    remedy: "Correct the file at the line that the message names.",
  },
  "file-unusable": {
    cause:
      "A file that the VM boots from is missing, unreadable, of the wrong kind, or changed since the preview.",
    remedy: "Give the path of a readable file of the kind that the message names, and run again.",
  },
  "kernel-unusable": {
    cause: "The kernel lacks what this boot needs, or no initramfs can be made for it.",
    remedy: "Use a kernel with the options that the message lists, or install what it names.",
  },
  "kernel-build": {
    cause: "`microvm kernel build` could not build a kernel from this source.",
    remedy: "See the lines that the message carries; leave out your own fragment, or give another source.",
  },
  "host-unusable": {
    cause: "This host lacks a program, a right or a device that the VM needs.",
    remedy: "Install or allow what the message names.",
  },
  "state-directory": {
    cause: "The state directory cannot be used: not writable, full, or open to other users.",
    remedy: "Make it writable for this user alone, or set XDG_STATE_HOME to another folder.",
  },
  "record-unreadable": {
    cause: "The record of a VM in the state directory is torn or from another version.",
    remedy: "`microvm rm NAME` ends the VM and removes its folder; `microvm forget NAME` only gives it up.",
  },
  "name-taken": {
    cause: "A VM of this name exists on this host and is not this resource's.",
    remedy: "Choose another `vmName`, or remove the VM with `microvm rm NAME`.",
  },
  "create-in-progress": {
    cause: "Another process is creating the same VM at this moment.",
    remedy: "Wait for the other `pulumi up` to end, then run again.",
  },
  "other-host": {
    cause: "The VM was made on another host, or its state directory is not this one.",
    remedy: "Run on that host; if it is gone for good, `microvm forget NAME` gives the VM up.",
  },
  "port-taken": {
    cause: "A host port of `portForwards` is already in use.",
    remedy: "Choose another `hostPort`, or end what listens there.",
  },
  "address-taken": {
    cause:
      "Another VM on this host has the guest's address, which follows from `vmName` unless `ip` gives one.",
    remedy: "Give one of the two another address of the network with `ip`.",
  },
  "boot-failed": {
    cause: "The guest did not come up on the root that the plan named.",
    remedy: "The message names the cause where the console shows one.",
  },
  "boot-timeout": {
    cause: "The guest did not prove its root within `readiness.timeoutSeconds`.",
    remedy:
      "See what the message says it waited for; raise `readiness.timeoutSeconds` if the guest is only slow.",
  },
  "nfs-unreachable": {
    cause: "The NFS server refuses, does not answer, or does not offer the export.",
    remedy: "Start the server, or correct nfsServer, nfsPort, nfsMountPort or nfsPath.",
  },
  "nfs-server-failed": {
    cause: "An NFS server that an `AgentFs` or `NfsExport` starts did not come up, or is gone.",
    remedy: "The message carries the server's own words.",
  },
  "database-unusable": {
    cause:
      "An AgentFS database is another resource's, cannot be read, or is not what the program says it is.",
    remedy: "Give each `AgentFs` a database of its own, or correct what the message names.",
  },
  "root-unusable": {
    cause: "The root file system has no init program that the guest's kernel can run.",
    remedy: "Put one there for the guest's processor, or name another with `init=` in `kernelArgs`.",
  },
  "vmm-failed": {
    cause: "The hypervisor did not start, ended, or refused a request.",
    remedy: "The message carries the hypervisor's own words.",
  },
  "server-failed": {
    cause:
      "The Arrakis server does not answer, refuses a request, or does another thing than it was asked for.",
    remedy: "Start it, or correct `backend`; where the server spoke, the message carries its own words.",
  },
  "guest-agent": {
    cause: "The command server in the guest does not answer, or does not do what it was asked for.",
    remedy: "Let the guest start one at the port that config.yaml names (guestservices.cmdserver.port).",
  },
  "internal-error": {
    cause: "This package or the system under it failed in a way that it does not expect.",
    remedy: "Report it with the message; `pulumi refresh` shows what is there.",
  },
  interrupted: {
    cause: "The Pulumi engine ended while the VM was being made; the VM was undone.",
    remedy: "Run `pulumi up` again.",
  },
} as const satisfies Record<string, ErrorKind>;

/** A key of {@link errorKinds}. */
export type ErrorCode = keyof typeof errorKinds;

/** What a {@link MicroVmError} may carry beside its code and text. */
export interface ErrorDetails {
  /** The input that is to blame, by its public name: `nfsPort`, `readiness.timeoutSeconds`. */
  readonly input?: string;
  /** The error underneath. */
  readonly cause?: unknown;
}

/** Any failure that this package reports on purpose. */
export class MicroVmError extends Error {
  override readonly name = "MicroVmError";
  /** What kind of failure it is. */
  readonly code: ErrorCode;
  /** The input that is to blame, where it is one. */
  readonly input: string | undefined;
  /** The message without the input's name. */
  readonly text: string;

  /**
   * @param code What kind of failure it is.
   * @param text What was expected, what was found, what to do; without the input's name.
   */
  constructor(code: ErrorCode, text: string, details: ErrorDetails = {}) {
    super(details.input === undefined ? text : `${details.input}: ${text}`, { cause: details.cause });
    this.code = code;
    this.input = details.input;
    this.text = text;
  }
}

/** A message with its code behind its first line: what a person can look up in MESSAGES.md. */
export function withCode(message: string, code: ErrorCode): string {
  const end = message.indexOf("\n");
  return end === -1 ? `${message} [${code}]` : `${message.slice(0, end)} [${code}]${message.slice(end)}`;
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a system error (`"ENOENT"`), if it has one. */
export function systemCodeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

const SHOWN_LENGTH = 80;

/** A value as error messages show it: `"abc" (string)`, `70000 (number)`, `nothing`. */
export function shown(value: unknown): string {
  if (value === undefined || value === null) return "nothing";
  // JSON has no NaN and no Infinity.
  const text = typeof value === "number" ? String(value) : quoted(value);
  const kind = Array.isArray(value) ? "list" : typeof value;
  return `${text.length > SHOWN_LENGTH ? `${text.slice(0, SHOWN_LENGTH)}…` : text} (${kind})`;
}

/** A value as JSON, on one line whatever it holds: JSON itself leaves DEL and the C1 controls as they are. */
export function quoted(value: unknown): string {
  const text = JSON.stringify(value) ?? typeof value;
  return text.replaceAll(/[\x7f-\x9f]/g, (control) => `\\u00${control.charCodeAt(0).toString(16)}`);
}
