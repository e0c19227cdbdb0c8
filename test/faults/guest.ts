/** A guest that writes and closes numbered files until its last moment, and says of each on its console that it is closed. */

import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { makeGuestRoot } from "../lab/guest.js";

/** How many lines a file has; each names the file, so that a torn or mixed-up one shows. */
const LINES = 200;

// `echo closed` comes after the redirection has been closed, which over NFS means: written to the server (close-to-open, nfs(5)).
const WRITER = `#!/bin/sh
boot=$(grep -c . /var/boots.txt)
mkdir -p /var/files/$boot
number=0
while :; do
  number=$((number + 1))
  line=0
  while [ $line -lt ${LINES} ]; do
    echo "boot $boot file $number line $line"
    line=$((line + 1))
  done > /var/files/$boot/$number
  echo "guest: closed $boot/$number" > /dev/console
done
`;

/** Makes such a guest's root. */
export async function makeWritingGuest(directory: string): Promise<void> {
  await makeGuestRoot(directory, "complete");
  await writeFile(join(directory, "usr/bin/writer"), WRITER, { mode: 0o755 });
  const inittab = join(directory, "etc/inittab");
  await writeFile(inittab, `${await readFile(inittab, "utf8")}::respawn:/usr/bin/writer\n`);
}

/** The files that a console tells are closed, as `boot/number`. */
export function closedFiles(console: string): string[] {
  return [...console.matchAll(/^guest: closed (\d+\/\d+)\r?$/gm)].map(([, name = ""]) => name);
}

/** Which of the files are missing on the server, or not whole. */
export async function lostFiles(directory: string, names: Iterable<string>): Promise<string[]> {
  const lost: string[] = [];
  for (const name of names) {
    const path = join(directory, "var/files", name);
    const found = existsSync(path) ? await readFile(path, "utf8") : undefined;
    if (found !== contentOf(name))
      lost.push(`${name}: ${found === undefined ? "missing" : `${found.length} bytes`}`);
  }
  return lost;
}

function contentOf(name: string): string {
  const [boot, number] = name.split("/");
  return Array.from({ length: LINES }, (_, line) => `boot ${boot} file ${number} line ${line}\n`).join("");
}
