/**
 * A preflight of taps in a network namespace of the test's: started there, it says what it finds of each question on its input.
 * `server` is the address at which an NFS server listens meanwhile; its port stands for `PORT` in the question.
 */

import { text } from "node:stream/consumers";

import type { GuestLink } from "../../../provider/boot/boot.js";
import { tapExportFindings } from "../../../provider/preflight/tap-export.js";
import { tapFindings, type TapNeeds } from "../../../provider/preflight/tap-network.js";
import { recorded } from "./nfs/answers.js";
import { reply, startPeer } from "./nfs/peer.js";

export interface TapQuestion {
  readonly needs?: TapNeeds;
  /** Asks for the export of the server at this address, of a guest on the link. */
  readonly export?: { readonly hostServer: string; readonly link: Extract<GuestLink, { kind: "tap" }> };
  readonly server?: string;
}

async function answer({ needs, export: place, server }: TapQuestion): Promise<unknown> {
  if (needs !== undefined) return await tapFindings(needs);
  if (place === undefined) throw new Error("nothing is asked");
  const { hostServer, link } = place;
  const peer = await startPeer(
    { onCall: (call) => void call.socket.write(reply(call, recorded(call))) },
    server ?? "127.0.0.1",
  );
  if (server === undefined) await peer.close();
  const { port } = peer;
  const found = await tapExportFindings({ hostServer, port, mountPort: port, path: "/srv" }, {}, link);
  if (server !== undefined) await peer.close();
  return found;
}

void text(process.stdin)
  .then(async (question) => await answer(JSON.parse(question) as TapQuestion))
  .then((found) => process.stdout.write(JSON.stringify(found)));
