/**
 * The relay of a guest that reaches its NFS server alone: QEMU runs one for each connection that the guest makes to a
 * forwarded port (`guestfwd=…-cmd:`, qemu(1)), with the connection as its standard input, output and error.
 *
 * Node runs it, since Node is there; it has no file of its own that could vanish under a running VM. It belongs to the VM, not to
 * the program that started the VM, and ends with its connection.
 */

/** How long one direction may lie still once the other has ended, in milliseconds: a server may take no notice of that. */
const HALF_OPEN_MILLISECONDS = 10_000;

/** Buffers of one direction, and the size of each in bytes. */
const BUFFERS = 4;
const BUFFER_BYTES = 131_072;

/**
 * Each direction has a few buffers that take turns: it is read from until all of them wait for the other side to take what is in
 * them. That keeps back pressure, and the relay small (`pipe` makes a new buffer for each read, and grew to 40 MiB). The end of one
 * direction ends that direction alone on the other side (shutdown(2)).
 */
const PROGRAM = [
  'const { Socket } = require("node:net");',
  "const [, host, port] = process.argv;",
  "const end = () => process.exit();",
  "const sides = [{ fd: 0 }, {}].map((place, index) => {",
  `const buffers = Array.from({ length: ${BUFFERS} }, () => Buffer.allocUnsafe(${BUFFER_BYTES}));`,
  "let turn = 0, waiting = 0;",
  "const buffer = () => buffers[turn++ % buffers.length];",
  "const taken = () => { waiting -= 1; side.resume(); };",
  "const callback = (length, from) => { waiting += 1; other().write(from.subarray(0, length), taken); return waiting < buffers.length; };",
  "const other = () => sides[1 - index];",
  `const onEnd = () => { other().end(); for (const each of sides) each.setTimeout(${HALF_OPEN_MILLISECONDS}, end); };`,
  "const side = new Socket({ ...place, readable: true, writable: true, allowHalfOpen: true, onread: { buffer, callback } });",
  'return side.setNoDelay(true).on("error", end).on("end", onEnd);',
  "});",
  "sides[1].connect({ host, port });",
  "for (const side of sides) side.resume();",
].join(" ");

/** Where a relay leads. */
export interface RelayTarget {
  /** IPv4 address as this host reaches it. */
  readonly host: string;
  readonly port: number;
}

/**
 * What a relay takes from QEMU's environment: the program does not fit into a forward, which QEMU cuts in silence after 1023 bytes
 * (net/slirp.c, struct slirp_config_str).
 *
 * @param node Absolute path of the Node program that runs it.
 */
export function relayEnvironment(node: string): Readonly<Record<string, string>> {
  return { MICROVM_RELAY_NODE: node, MICROVM_RELAY: PROGRAM };
}

/** The command line of a relay, as a shell takes it apart, and QEMU by g_shell_parse_argv(). */
export function relayCommand({ host, port }: RelayTarget): string {
  // Standard error is the connection too: what Node might say there would be the server's words to the guest.
  const script = 'exec "$MICROVM_RELAY_NODE" --no-warnings -e "$MICROVM_RELAY" "$@" 2> /dev/null';
  return `/bin/sh -c '${script}' relay ${host} ${port}`;
}
