/**
 * The relay of a guest that reaches its NFS server alone: QEMU runs one for each connection that the guest makes to a
 * forwarded port (`guestfwd=…-cmd:`, qemu(1)), with the connection as its standard input, output and error.
 *
 * Node runs it, since Node is there; it has no file of its own that could vanish under a running VM. It belongs to the VM, not to
 * the program that started the VM, and ends with its connection.
 */

/** How long one direction may lie still once the other has ended, in milliseconds: a server may take no notice of that. */
const HALF_OPEN_MILLISECONDS = 10_000;

/** What one read takes, in bytes. */
const BUFFER_BYTES = 262_144;

/**
 * Each side has one buffer, which is read into again once the other side has taken what was in it: that keeps back pressure, and
 * the relay small (`pipe` makes a new buffer for each read, and grew to 40 MiB). The end of one direction ends that direction
 * alone on the other side (shutdown(2)).
 */
const PROGRAM = [
  'const { Socket } = require("node:net");',
  "const [, host, port] = process.argv;",
  "const end = () => process.exit();",
  "const sides = [{ fd: 0 }, {}].map((place, index) => {",
  "const other = () => sides[1 - index];",
  "const callback = (length, buffer) => { other().write(buffer.subarray(0, length), () => side.resume()); return false; };",
  `const onread = { buffer: Buffer.allocUnsafe(${BUFFER_BYTES}), callback };`,
  "const side = new Socket({ ...place, readable: true, writable: true, allowHalfOpen: true, onread });",
  `const onEnd = () => { other().end(); for (const each of sides) each.setTimeout(${HALF_OPEN_MILLISECONDS}, end); };`,
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
 * The command line of a relay, quoted for a shell and for GLib's g_shell_parse_argv(), by which QEMU takes it apart.
 *
 * @param node Absolute path of the Node program.
 */
export function relayCommand(node: string, { host, port }: RelayTarget): string {
  const program = [node, "--no-warnings", "-e", PROGRAM, host, String(port)];
  // Standard error is the connection too: what Node might say there would be the server's words to the guest.
  return ["/bin/sh", "-c", 'exec "$@" 2> /dev/null', "relay", ...program].map(quoted).join(" ");
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
