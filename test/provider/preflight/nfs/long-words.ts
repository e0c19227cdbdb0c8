/** A server in a process of its own whose words are as long as it can make them. It prints its port. */

import { deniedAnswers, linkAttributes, mountdAnswers, nfsdAnswers } from "./answers.js";
import { encodeOpaque, encodeUint32 } from "../../../../provider/preflight/nfs/xdr.js";
import { type PeerCall, reply, startPeer } from "./peer.js";

const MOUNT = 100_005;
const [words, nameBytes] = [process.argv[2], Number(process.argv[3])];

const ok = Buffer.from(mountdAnswers[0] ?? "", "hex");
/** Bytes that are no UTF-8: each becomes a character of two bytes. */
const name = Buffer.alloc(nameBytes, 0xff);

/** As many exports as a record holds. */
function exports(): Buffer {
  const entry = Buffer.concat([encodeUint32(1), encodeOpaque(name), encodeUint32(0)]);
  const count = Math.floor(260_000 / entry.length);
  return Buffer.concat([ok, encodeUint32(0), ...Array.from({ length: count }, () => entry), encodeUint32(0)]);
}

/** A link to a folder of folders, with a link in the last. */
function link(): Buffer {
  const names = Array.from({ length: Math.max(1, Math.floor(4000 / (nameBytes + 1))) }, () => name);
  const target = Buffer.concat(
    names.flatMap((folder) => [folder, Buffer.from("/")]).concat(Buffer.from("l")),
  );
  return Buffer.concat([ok, encodeUint32(0, 0), encodeOpaque(target)]);
}

/** After so many links, one leads nowhere: init is looked for elsewhere. */
const LINKS = Math.max(2, Math.floor((250 * nameBytes) / 4000));
let links = 0;

function lookup(message: Buffer): Buffer {
  // A name of ours, as the probe has read it.
  if (message.includes("\u{FFFD}")) return Buffer.from(nfsdAnswers[2] ?? "", "hex");
  links += 1;
  if (links % LINKS === 0) return Buffer.concat([ok, encodeUint32(2, 0)]);
  return Buffer.concat([ok, encodeUint32(0, 4, 1, 1), Buffer.from(linkAttributes, "hex"), encodeUint32(0)]);
}

function answer({ program, procedure, message }: PeerCall): Buffer {
  if (procedure === 0) return ok;
  if (program === MOUNT) {
    if (procedure === 5) return exports();
    return Buffer.from((words === "exports" ? deniedAnswers : mountdAnswers)[procedure] ?? "", "hex");
  }
  if (procedure === 1) return Buffer.from(nfsdAnswers[1] ?? "", "hex");
  return procedure === 5 ? link() : lookup(message);
}

async function main(): Promise<void> {
  const { port } = await startPeer({ onCall: (call) => call.socket.write(reply(call, answer(call))) });
  console.log(port);
}

void main();
