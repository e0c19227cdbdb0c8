/**
 * The relay of a guest that reaches its NFS server alone: QEMU runs one for each connection that the guest makes to a
 * forwarded port (`guestfwd=…-cmd:`, qemu(1)), with the connection as its standard input, output and error.
 *
 * Node runs it, since Node is there; it has no file of its own that could vanish under a running VM. It belongs to the VM, not to
 * the program that started the VM, and ends with its connection.
 */

/** How long one direction may lie still once the other has ended, in milliseconds: a server may take no notice of that. */
const HALF_OPEN_MILLISECONDS = 10_000;

/** `pipe` keeps back pressure, and ends one direction (shutdown(2)) when the other side has ended its own. */
const PROGRAM = [
  'const { Socket, connect } = require("node:net");',
  "const [, host, port] = process.argv;",
  "const allowHalfOpen = true;",
  "const guest = new Socket({ fd: 0, readable: true, writable: true, allowHalfOpen });",
  "const server = connect({ host, port, allowHalfOpen });",
  "const end = () => process.exit();",
  "for (const side of [guest, server]) {",
  "side.setNoDelay(true);",
  'side.on("error", end);',
  `side.on("end", () => { for (const each of [guest, server]) each.setTimeout(${HALF_OPEN_MILLISECONDS}, end); });`,
  "}",
  "guest.pipe(server).pipe(guest);",
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
