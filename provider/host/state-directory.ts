/** The folder in which this host keeps its VMs, and who this host is. */

/** A state directory that has been found usable. */
export interface StateDirectory {
  /** Absolute path. */
  readonly path: string;
  /** Content of its `host-id` file: 32 random hex digits. */
  readonly hostId: string;
}

/** `$XDG_STATE_HOME/pulumi-microvm`, else `~/.local/state/pulumi-microvm` (XDG Base Directory Specification). */
export function defaultStateDirectory(env: NodeJS.ProcessEnv = process.env): string {
  throw new Error("not written yet", { cause: env });
}

/**
 * Opens a state directory, made (mode 0700) when it is not there, with the host id in it.
 *
 * @throws MicroVmError `state-directory` when the path is not absolute, the folder is another user's, group or others can write
 * to it, it cannot be written (its file system is read-only or full), or its `host-id` is torn.
 */
export async function openStateDirectory(path: string): Promise<StateDirectory> {
  throw new Error("not written yet", { cause: path });
}

/**
 * The host id of a state directory, without making or changing anything.
 *
 * @returns undefined when the folder or its `host-id` is not there.
 * @throws MicroVmError `state-directory` when it is there and cannot be read.
 */
export async function readHostId(path: string): Promise<string | undefined> {
  throw new Error("not written yet", { cause: path });
}
