/** The short folder for unix sockets and leases: gone after a reboot, as what it names is. */

/**
 * `$XDG_RUNTIME_DIR/pulumi-microvm` where that folder is this user's, else `/run/pulumi-microvm` for root, else
 * `/tmp/pulumi-microvm-UID`; made (mode 0700) when it is not there.
 *
 * @throws MicroVmError `host-unusable` when it is a symbolic link, no folder, another user's, or open to others.
 */
export async function runtimeDirectory(env: NodeJS.ProcessEnv = process.env): Promise<string> {
  throw new Error("not written yet", { cause: env });
}

/**
 * The path of an instance's control socket, `RUNTIME/<instance>.sock`: it carries the instance, so that
 * `findByArgument(path)` finds the VMM of this instance and no other.
 *
 * @throws MicroVmError `host-unusable` when it is longer than the 107 bytes of unix(7), as {@link runtimeDirectory} besides.
 */
export async function controlSocketPath(
  instance: string,
  env: NodeJS.ProcessEnv = process.env,
): Promise<string> {
  throw new Error("not written yet", { cause: [instance, env] });
}
