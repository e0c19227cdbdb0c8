/** Peers of the probe that end with the test that has started them. */

import { afterEach } from "vitest";

import { recorded } from "./answers.js";
import { type Peer, type PeerBehaviour, reply, startPeer } from "./peer.js";

/** How a test gets its peers. */
export interface Peers {
  /** A peer on a free port of loopback. */
  readonly listen: (behaviour: PeerBehaviour) => Promise<Peer>;
  /** A server whose export `/srv` holds a static x86_64 program at /sbin/init: it answers as ganesha did. */
  readonly rightServer: () => Promise<Peer>;
}

/** Ends every peer after its test. */
export function usePeers(): Peers {
  const peers: Peer[] = [];
  afterEach(async () => {
    await Promise.all(peers.splice(0).map((peer) => peer.close()));
  });
  const listen = async (behaviour: PeerBehaviour): Promise<Peer> => {
    const peer = await startPeer(behaviour);
    peers.push(peer);
    return peer;
  };
  const rightServer = async (): Promise<Peer> =>
    await listen({ onCall: (call) => void call.socket.write(reply(call, recorded(call))) });
  return { listen, rightServer };
}
