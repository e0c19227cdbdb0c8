/** Programs of this host in the root of a machine of the lab's own. */

import { chmod, copyFile, mkdir, realpath } from "node:fs/promises";
import { dirname, join } from "node:path";
import { runProcess } from "./run-process.js";

/** Copies a program or library, and the libraries that it needs, which keep their paths. */
export async function copyProgram(root: string, source: string, target: string): Promise<void> {
  await copyOnce(root, source, target);
  const { exitCode, stdout, output } = await runProcess("ldd", [source]);
  if (exitCode !== 0) {
    if (/not a dynamic executable|statically linked/.test(output)) return;
    throw new Error(`ldd ${source}: ${output}`);
  }
  for (const library of stdout.matchAll(/(?:=> |^\s*)(\/\S+) \(0x/gm))
    await copyOnce(root, library[1] ?? "", library[1] ?? "");
}

async function copyOnce(root: string, source: string, target: string): Promise<void> {
  const place = join(root, target);
  await mkdir(dirname(place), { recursive: true });
  await copyFile(await realpath(source), place);
  await chmod(place, 0o755);
}
