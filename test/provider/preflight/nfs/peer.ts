/** A TCP server on loopback that answers RPC calls in whatever way a test wants. */

import { once } from "node:events";
import { createServer, type Socket } from "node:net";

import { encodeRecord, RecordAssembler } from "../../../../provider/preflight/nfs/record.js";
import { encodeUint32 } from "../../../../provider/preflight/nfs/xdr.js";

/** One call, as the peer received it. */
export interface PeerCall {
  readonly xid: number;
  readonly program: number;
  readonly procedure: number;
  /** Number of the call on its connection, from 0. */
  readonly index: number;
  readonly message: Buffer;
  readonly socket: Socket;
}

/** A listening peer. */
export interface Peer {
  readonly port: number;
  readonly calls: readonly PeerCall[];
  /** Every connection that was ever made. */
  readonly sockets: readonly Socket[];
  close(): Promise<void>;
}

/** What a peer does. */
export interface PeerBehaviour {
  readonly onConnect?: (socket: Socket) => void;
  readonly onCall?: (call: PeerCall) => void;
}

/** A peer on a free port of `host`, an address of loopback. */
export async function startPeer(behaviour: PeerBehaviour, host = "127.0.0.1"): Promise<Peer> {
  const calls: PeerCall[] = [];
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.setNoDelay(true).on("error", () => undefined);
    behaviour.onConnect?.(socket);
    const records = new RecordAssembler();
    let index = 0;
    socket.on("data", (chunk: Buffer) => {
      for (const message of records.push(chunk)) {
        const call: PeerCall = {
          xid: message.readUInt32BE(0),
          program: message.readUInt32BE(12),
          procedure: message.readUInt32BE(20),
          index,
          message,
          socket,
        };
        index += 1;
        calls.push(call);
        behaviour.onCall?.(call);
      }
    });
  });
  server.listen(0, host);
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server without a port");
  return {
    port: address.port,
    calls,
    sockets,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** A reply as it goes over the wire: record mark, transaction id, then `body` from the message type on. */
export function reply({ xid }: { readonly xid: number }, body: Buffer | string): Buffer {
  const rest = typeof body === "string" ? Buffer.from(body.replaceAll(/\s/g, ""), "hex") : body;
  return encodeRecord(Buffer.concat([encodeUint32(xid), rest]));
}
