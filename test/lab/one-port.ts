/** NFS and MOUNT of a server on one port, as AgentFS has them. */

import { once } from "node:events";
import { createConnection, createServer, type Socket } from "node:net";

/** ONC RPC program of NFS (RFC 1813, section 2.2). */
const NFS_PROGRAM = 100003;

/** Bytes of a call up to its program: record mark, xid, CALL, RPC version, program (RFC 5531, sections 9 and 11). */
const HEAD_BYTES = 20;

/**
 * Listens at one more port and leads each connection, by its first call, to the server's port for that.
 *
 * @returns Ends it.
 */
export async function onOnePort(
  place: { readonly address: string; readonly port: number },
  server: { readonly nfsPort: number; readonly mountPort: number },
): Promise<() => Promise<void>> {
  const open = new Set<Socket>();
  const keep = (socket: Socket): void => {
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    // The other side is ended, too.
    socket.on("error", () => socket.destroy());
  };
  const listener = createServer((client) => {
    keep(client);
    client.once("readable", () => {
      const head: unknown = client.read(HEAD_BYTES);
      if (!Buffer.isBuffer(head) || head.length < HEAD_BYTES) {
        client.destroy();
        return;
      }
      const port = head.readUInt32BE(HEAD_BYTES - 4) === NFS_PROGRAM ? server.nfsPort : server.mountPort;
      const inner = createConnection({ host: place.address, port });
      keep(inner);
      inner.write(head);
      client.pipe(inner).pipe(client);
      inner.on("close", () => client.destroy());
      client.on("close", () => inner.destroy());
    });
  });
  listener.listen(place.port, place.address);
  await once(listener, "listening");
  return async () => {
    const closed = once(listener, "close");
    listener.close();
    for (const socket of open) socket.destroy();
    await closed;
  };
}
