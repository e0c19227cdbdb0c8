/**
 * What nfs-ganesha 4.3 answered to one probe, without the transaction ids: the export `/srv` holds `/sbin/init`, a
 * link to `/bin/busybox`, a static x86_64 program of 120 bytes. In the order of the probe's calls.
 */

import type { PeerCall } from "./peer.js";

const VOID = "0000000100000000000000000000000000000000";
const OK = "000000010000000000000000000000000000000000000000";
const OK_LENGTH_24 = `${OK}00000018`;
const TIMES = "6b0548a91e30db4b6b0548a91e30db4b6b0548a91e30db4b";
const BIN_ATTRIBUTES = `00000002000001ed000000020000000000000000000000000000100000000000000010000000000000000000946c7be7b846a5cf0000000000a180b6${TIMES}`;
const SBIN_ATTRIBUTES = `00000002000001ed000000020000000000000000000000000000100000000000000010000000000000000000946c7be7b846a5cf0000000000a180b2${TIMES}`;

/** Attributes of the export's root: fattr3, 84 bytes. */
export const rootAttributes = `00000002000001ed000000040000000000000000000000000000100000000000000010000000000000000000946c7be7b846a5cf0000000000a180b0${TIMES}`;
/** Attributes of a symbolic link. */
export const linkAttributes = `00000005000001ff000000010000000000000000000000000000000c00000000000000000000000000000000946c7be7b846a5cf0000000000a180b8${TIMES}`;
/** Attributes of the program. */
export const programAttributes = `00000001000001ed000000010000000000000000000000000000007800000000000010000000000000000000946c7be7b846a5cf0000000000a180b7${TIMES}`;

/** File handle of the export's root. */
export const rootHandle = "430000011244cfa546b8e77b6c9401b080a100b127f3d300";

/** nfsd's answers, each from the fourth byte of the reply on, as hex digits. */
export const nfsdAnswers: readonly string[] = [
  VOID,
  `${OK}${rootAttributes}`,
  `${OK_LENGTH_24}430000011244cfa546b8e77b6c9401b280a1004819fa090000000001${SBIN_ATTRIBUTES}00000001${rootAttributes}`,
  `${OK_LENGTH_24}430000011244cfa546b8e77b6c9401b880a100935c4ae00000000001${linkAttributes}00000001${SBIN_ATTRIBUTES}`,
  `${OK}00000001${linkAttributes}0000000c2f62696e2f62757379626f78`,
  `${OK_LENGTH_24}430000011244cfa546b8e77b6c9401b680a1009df5eb9e0000000001${BIN_ATTRIBUTES}00000001${rootAttributes}`,
  `${OK_LENGTH_24}430000011244cfa546b8e77b6c9401b780a100dd6d4df20000000001${programAttributes}00000001${BIN_ATTRIBUTES}`,
  `${OK}00000001${programAttributes}0000007800000001000000787f454c4602010100000000000000000002003e00010000000000000000000000400000000000000000000000000000000000000040003800010000000000000001000000050000000000000000000000${"00".repeat(44)}`,
];

/** mountd's answers to NULL, MNT and UMNT. */
export const mountdAnswers: readonly string[] = [VOID, `${OK_LENGTH_24}${rootHandle}0000000100000001`, VOID];

/** mountd's answers when the export is another: NULL, MNT, EXPORT. */
export const deniedAnswers: readonly string[] = [
  VOID,
  "00000001000000000000000000000000000000000000000d",
  "000000010000000000000000000000000000000000000001000000042f7372760000000000000000",
];

/** The answer that nfsd and mountd gave to the call of this number on its connection. */
export function recorded({ program, index }: PeerCall): Buffer {
  const answers = program === 100_003 ? nfsdAnswers : mountdAnswers;
  return Buffer.from(answers[index] ?? VOID, "hex");
}
