/** Archives in the "newc" format that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst). */

/** One entry of an archive; all belong to root and carry no time. */
export type CpioEntry =
  | { readonly type: "directory"; readonly path: string; readonly mode: number }
  | { readonly type: "file"; readonly path: string; readonly mode: number; readonly content: Buffer }
  | { readonly type: "link"; readonly path: string; readonly target: string }
  | {
      readonly type: "character-device";
      readonly path: string;
      readonly mode: number;
      readonly major: number;
      readonly minor: number;
    };

const typeBits = {
  directory: 0o040000,
  file: 0o100000,
  link: 0o120000,
  "character-device": 0o020000,
} as const satisfies Record<CpioEntry["type"], number>;

/**
 * Writes an archive. The same entries in any order give the same bytes.
 *
 * @param entries Paths are relative, without a leading slash; directories have to be entries of their own.
 */
export function cpioArchive(entries: readonly CpioEntry[]): Buffer {
  // By code unit, not by locale: a directory sorts before what is in it, on every machine alike.
  const sorted = [...entries];
  sorted.sort((a, b) => (a.path < b.path ? -1 : 1));
  const parts = sorted.flatMap((entry, index) => entryParts(entry, index + 1));
  parts.push(...trailerParts());
  return Buffer.concat(parts);
}

function entryParts(entry: CpioEntry, inode: number): Buffer[] {
  const content = contentOf(entry);
  const mode = typeBits[entry.type] | (entry.type === "link" ? 0o777 : entry.mode);
  const { major, minor } = entry.type === "character-device" ? entry : { major: 0, minor: 0 };
  const links = entry.type === "directory" ? 2 : 1;
  return [
    header({ inode, mode, links, size: content.length, major, minor, path: entry.path }),
    ...padded(content),
  ];
}

function trailerParts(): Buffer[] {
  return [header({ inode: 0, mode: 0, links: 1, size: 0, major: 0, minor: 0, path: "TRAILER!!!" })];
}

function contentOf(entry: CpioEntry): Buffer {
  if (entry.type === "file") return entry.content;
  return Buffer.from(entry.type === "link" ? entry.target : "");
}

interface HeaderFields {
  readonly inode: number;
  readonly mode: number;
  readonly links: number;
  readonly size: number;
  readonly major: number;
  readonly minor: number;
  readonly path: string;
}

function header(fields: HeaderFields): Buffer {
  const name = Buffer.from(`${fields.path}\0`);
  const numbers = [
    fields.inode,
    fields.mode,
    0, // uid
    0, // gid
    fields.links,
    0, // mtime
    fields.size,
    0, // major and minor number of the device that the file came from
    0,
    fields.major,
    fields.minor,
    name.length,
    0, // checksum, unused in this format
  ];
  const digits = numbers.map((number) => number.toString(16).toUpperCase().padStart(8, "0")).join("");
  return Buffer.concat(padded(Buffer.concat([Buffer.from(`070701${digits}`), name])));
}

/** Names (with their header) and contents are padded to 4 bytes. */
function padded(bytes: Buffer): Buffer[] {
  const rest = bytes.length % 4;
  return rest === 0 ? [bytes] : [bytes, Buffer.alloc(4 - rest)];
}
