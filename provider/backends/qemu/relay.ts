/**
 * The relay of a guest that reaches its NFS server alone: QEMU runs one for each connection that the guest makes to a
 * forwarded port (`guestfwd=…-cmd:`, qemu(1)), with the connection as its standard input, output and error.
 *
 * Node runs it, since Node is there; it has no file of its own that could vanish under a running VM. It belongs to the VM, not to
 * the program that started the VM, and ends with its connection.
 */

/** How long one direction may lie still once the other has ended, in milliseconds: a server may take no notice of that. */
const HALF_OPEN_MILLISECONDS = 10_000;

/**
 * How long a server that does not answer is tried, and how often, in milliseconds. To the guest its connection stands already, so it
 * would come again at once, and cost this host a relay each time.
 */
const TRY_MILLISECONDS = 20_000;
const PAUSE_MILLISECONDS = 1_000;

/** Buffers of one direction, and the size of each in bytes. */
const BUFFERS = 4;
const BUFFER_BYTES = 131_072;

/**
 * Each direction has a few buffers that take turns: it is read from until all of them wait for the other side to take what is in
 * them. That keeps back pressure, and the relay small (`pipe` makes a new buffer for each read, and grew to 40 MiB). The end of one
 * direction ends that direction alone on the other side (shutdown(2)). The guest is listened to once the server is there.
 */
const PROGRAM = [
  'const { Socket } = require("node:net");',
  "const [, host, port] = process.argv;",
  "const end = () => process.exit();",
  "let sides;",

  "const open = (index, place) => {",
  `const buffers = Array.from({ length: ${BUFFERS} }, () => Buffer.allocUnsafe(${BUFFER_BYTES}));`,
  "let turn = 0, waiting = 0;",
  "const buffer = () => buffers[turn++ % buffers.length];",
  "const taken = () => { waiting -= 1; side.resume(); };",
  "const callback = (length, from) => { waiting += 1; sides[1 - index].write(from.subarray(0, length), taken); return waiting < buffers.length; };",
  "const side = new Socket({ ...place, readable: true, writable: true, allowHalfOpen: true, onread: { buffer, callback } });",
  "return side;",
  "};",

  "const begin = (side, index) => {",
  `const onEnd = () => { sides[1 - index].end(); for (const each of sides) each.setTimeout(${HALF_OPEN_MILLISECONDS}, end); };`,
  'side.setNoDelay(true).on("error", end).on("end", onEnd).resume();',
  "};",

  `const deadline = Date.now() + ${TRY_MILLISECONDS};`,
  "const reach = () => {",
  `const again = () => { if (Date.now() < deadline) setTimeout(reach, ${PAUSE_MILLISECONDS}); else end(); };`,
  'const server = open(1).once("error", again);',
  'server.connect({ host, port }, () => { server.off("error", again); sides = [open(0, { fd: 0 }), server]; sides.forEach(begin); });',
  "};",
  "reach();",
].join(" ");

/** Where a relay leads. */
export interface RelayTarget {
  /** IPv4 address as this host reaches it. */
  readonly host: string;
  readonly port: number;
}

/**
 * About the most connections that a guest has at a time: each is a process of this host, and a guest could ask for thousands.
 * `nconnect` of nfs(5) goes up to 16.
 */
const MOST = 16;

/**
 * Takes a place, a file named by its number that holds the process id, and becomes the relay (exec keeps the id). One whose process
 * is gone is free. The shell does all of it by itself, so that a connection too many costs no more. Standard error is the connection
 * too: what Node might say there would be the server's words to the guest.
 */
const START = [
  "exec 2> /dev/null;",
  "set -C;",
  'mkdir -p -m 700 "$MICROVM_RELAYS" && cd "$MICROVM_RELAYS" || exit;',
  `for place in ${Array.from({ length: MOST }, (_, index) => index).join(" ")}; do`,
  "echo $$ > $place && break;",
  // Another may have made the file and not yet written into it.
  "holder= tries=50; until read -r holder < $place || [ $((tries -= 1)) = 0 ]; do :; done;",
  'kill -0 "$holder" || { echo $$ >| $place; break; };',
  "place=; done;",
  '[ "$place" ] && exec "$MICROVM_RELAY_NODE" --no-warnings -e "$MICROVM_RELAY" "$@"',
].join(" ");

/**
 * What a relay takes from QEMU's environment: the program does not fit into a forward, which QEMU cuts in silence after 1023 bytes
 * (net/slirp.c, struct slirp_config_str).
 *
 * @param node Absolute path of the Node program that runs it.
 * @param places Absolute path of a folder of the VM's relays, made when the first one starts.
 */
export function relayEnvironment(node: string, places: string): Readonly<Record<string, string>> {
  return { MICROVM_RELAY_NODE: node, MICROVM_RELAY: PROGRAM, MICROVM_RELAYS: places };
}

/** The command line of a relay, as a shell takes it apart, and QEMU by g_shell_parse_argv(). */
export function relayCommand({ host, port }: RelayTarget): string {
  return `/bin/sh -c '${START}' relay ${host} ${port}`;
}
