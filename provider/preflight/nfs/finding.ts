/** What a probe of an NFS export can find: one finding per probe, whatever the server does. */

/** The three RPC services behind one NFSv3 mount: RFC 1813 for `nfsd` and `mountd`, RFC 1833 for `rpcbind`. */
export type Service = "nfsd" | "mountd" | "rpcbind";

/** Processors that a guest can have. */
export type Architecture = "x86_64" | "aarch64";

/** Where an export is, as seen from this host. */
export interface NfsTarget {
  /** IPv4 address. */
  readonly server: string;
  /** TCP port of nfsd. */
  readonly port: number;
  /** TCP port of mountd, or `"rpcbind"`: the server's rpcbind on port 111 is asked for it. */
  readonly mountPort: number | "rpcbind";
  /** Path of the export, absolute. */
  readonly path: string;
}

/** File types of NFSv3 (RFC 1813 section 2.5, `ftype3`). */
export type FileType =
  | "file"
  | "directory"
  | "block device"
  | "character device"
  | "symbolic link"
  | "socket"
  | "named pipe";

/** What of a file's attributes is used here (RFC 1813 section 2.5, `fattr3`). */
export interface FileAttributes {
  readonly type: FileType;
  /** Permission bits, 0 to 0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Exact up to 2^53. */
  readonly sizeBytes: number;
  /** File system id, 16 hex digits. */
  readonly fileSystemId: string;
  /** File id (inode number) within that file system, decimal. */
  readonly fileId: string;
}

/** The program that the kernel will run as process 1. */
export interface InitProgram {
  /** As asked for: the value of `init=`, or the first of the kernel's own list that can run. */
  readonly path: string;
  /** The same after symbolic links, absolute within the export. */
  readonly resolvedPath: string;
  readonly format: "elf" | "script";
  /** What it names to run it: the `#!` interpreter of a script, the dynamic loader of a program. */
  readonly interpreter?: string;
}

/** Something that ended a conversation with one service. */
interface ServiceFinding {
  readonly certain: boolean;
  readonly service: Service;
  /** TCP port that was spoken to. */
  readonly port: number;
}

/** The same, in answer to a procedure (`"NULL"`, `"MNT"`, …), or `"connect"`. */
interface StepFinding extends ServiceFinding {
  readonly step: string;
}

/**
 * What was found. `certain` means that the guest will meet the same: of a finding that depends on who asks
 * (refused, timed out, denied) that holds only where the guest's traffic leaves by this host's address.
 */
export type NfsFinding =
  | {
      readonly kind: "ok";
      readonly certain: true;
      /** TCP port of mountd that answered. */
      readonly mountPort: number;
      /** Root file handle, up to 64 bytes, as hex digits. */
      readonly rootFileHandle: string;
      readonly root: FileAttributes;
      readonly init: InitProgram;
    }
  /** Nothing listens on the port. */
  | ({ readonly kind: "refused" } & ServiceFinding)
  /** The network or the name service says no; `reason` is the system's error code (`"EHOSTUNREACH"`). */
  | ({ readonly kind: "unreachable"; readonly reason: string } & ServiceFinding)
  /**
   * No whole answer in time; `receivedBytes` of one had come. The time of the step was up, or that of the probe.
   * Uncertain once the service has answered anything: the guest has more patience.
   */
  | ({
      readonly kind: "timed-out";
      readonly bound: "step" | "probe";
      readonly seconds: number;
      readonly receivedBytes: number;
    } & StepFinding)
  /** The connection was closed instead of a whole answer. */
  | ({ readonly kind: "disconnected"; readonly receivedBytes: number } & StepFinding)
  /** What came is not what RFC 5531 (or the procedure's RFC) allows; `found` says in words what it is. */
  | ({ readonly kind: "not-rpc"; readonly found: string } & StepFinding)
  /** The port's server, or rpcbind, does not know the program. */
  | ({ readonly kind: "program-not-registered"; readonly program: Service } & ServiceFinding)
  | ({
      readonly kind: "version-mismatch";
      readonly wanted: number;
      readonly lowest: number;
      readonly highest: number;
    } & ServiceFinding)
  /** Rejected before the procedure: an `auth_stat` of RFC 5531 section 9, or `"RPC_MISMATCH"`. */
  | ({
      readonly kind: "rpc-denied";
      readonly reason: string;
      readonly needsPrivilegedPort: boolean;
    } & StepFinding)
  /** Accepted, but not carried out: `"PROC_UNAVAIL"`, `"GARBAGE_ARGS"` or `"SYSTEM_ERR"`. */
  | ({ readonly kind: "rpc-error"; readonly status: string } & StepFinding)
  /** No such export, or none for this host: `status` is MNT's. `exports` is what the server offers; absent where it does not tell. */
  | {
      readonly kind: "export-unknown";
      readonly certain: boolean;
      readonly status: string;
      readonly exports?: readonly string[];
    }
  | {
      readonly kind: "access-denied";
      readonly certain: boolean;
      readonly step: string;
      /** Name of the status in RFC 1813: `"MNT3ERR_ACCES"`. */
      readonly status: string;
      /** Path within the export that was denied; `/` is its root. */
      readonly at: string;
      /** The same worked from a source port below 1024, which the guest will not have. */
      readonly needsPrivilegedPort: boolean;
    }
  /** The export wants security that an NFS root cannot give (`flavors`: RFC 5531 section 8.1 numbers). */
  | { readonly kind: "security-flavor"; readonly certain: true; readonly flavors: readonly number[] }
  | { readonly kind: "not-a-directory"; readonly certain: true }
  /** A file handle that the server gave is no longer good: it restarted, or the export was replaced. */
  | { readonly kind: "stale"; readonly certain: boolean; readonly step: string; readonly status: string }
  | { readonly kind: "nfs-error"; readonly certain: boolean; readonly step: string; readonly status: string }
  /** None of `tried` is there; `missing` is the path within the export where the search for the first ended. */
  | {
      readonly kind: "init-missing";
      readonly certain: true;
      readonly asked: boolean;
      readonly tried: readonly string[];
      readonly missing: string;
    }
  /** It is there, and the kernel cannot run it: `why` says so in words. */
  | {
      readonly kind: "init-not-executable";
      readonly certain: true;
      readonly asked: boolean;
      readonly path: string;
      readonly why: string;
    }
  | {
      readonly kind: "init-wrong-arch";
      readonly certain: true;
      readonly asked: boolean;
      readonly path: string;
      readonly expected: Architecture;
      /** The program's own machine, in words: `"aarch64"`, `"machine 243"`. */
      readonly found: string;
    }
  /** Init is there, but what it names to run it (`#!` or the dynamic loader) is not. */
  | {
      readonly kind: "interpreter-missing";
      readonly certain: true;
      readonly asked: boolean;
      readonly path: string;
      readonly interpreter: string;
    };

/** The finding of one kind. */
export type FindingOf<K extends NfsFinding["kind"]> = Extract<NfsFinding, { kind: K }>;

/** Ends a probe from wherever it is; never leaves this folder. */
export class ProbeEnd extends Error {
  override readonly name = "ProbeEnd";
  constructor(readonly finding: NfsFinding) {
    super(finding.kind);
  }
}
