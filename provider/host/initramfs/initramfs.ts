/**
 * An initramfs of our own, for a kernel that has what a boot needs only as modules: a static busybox, the modules,
 * and a script that mounts the root. The same inputs give the same bytes on every machine.
 */

import { createHash, randomBytes } from "node:crypto";
import type { Stats } from "node:fs";
import { mkdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { MicroVmError, messageOf, systemCodeOf } from "../../errors.js";
import { leadsNowhere } from "../storage.js";
import type { KernelFacts } from "../../preflight/kernel/inspect.js";
import { type Busybox, findBusybox } from "./busybox.js";
import { cpioArchive, type CpioEntry } from "./cpio.js";
import { dhcpScript, initApplets, initScript } from "./init-script.js";
import { findModules, type Module, readModules } from "./modules.js";
import { stampOf } from "./stamp.js";

/** An initramfs that this package made. */
export interface GeneratedInitramfs {
  /** Absolute path, named by its content. */
  readonly path: string;
  /** SHA-256 of the content, 64 hex digits. */
  readonly sha256: string;
  readonly generated: true;
}

/** What an initramfs is made for. */
export interface InitramfsRequest {
  readonly facts: KernelFacts;
  /** Modules that the boot needs, in the order of loading; what they depend on is added. */
  readonly modules: readonly string[];
  /** Modules that are loaded where there are any. */
  readonly optionalModules: readonly string[];
  /** Absolute path of a folder for the archive and for what is remembered of it; made where it is missing. */
  readonly cacheDirectory: string;
}

/** What is remembered of an initramfs: it is used again while nothing that went in has changed. */
interface Remembered {
  readonly sha256: string;
  readonly size: number;
  /** Paths of the files that went in, each with {@link stampOf} before it was read. */
  readonly sources: readonly (readonly [path: string, stamp: string])[];
}

/** To be raised whenever modules are chosen, or the archive is put together, in another way. */
const RECIPE_VERSION = 2;

/**
 * Makes the initramfs for a boot, or finds it made.
 *
 * It is a "newc" archive, not compressed: a compressor's output differs between versions and processors, and the
 * guest would have to unpack it. Two processes may make the same one at once: both write the same bytes by rename.
 *
 * @throws MicroVmError `kernel-unusable`: modules are missing; `host-unusable`: no static busybox; both with input
 * `kernel`. `file-unusable`, input `kernel`: a module may not be read. `state-directory`: the cache directory cannot be written.
 */
export async function ensureInitramfs(request: InitramfsRequest): Promise<GeneratedInitramfs> {
  try {
    return await madeInitramfs(request);
  } catch (error) {
    if (systemCodeOf(error) !== "EACCES") throw error;
    const text = `the modules of ${request.facts.path} cannot be read, of which its initramfs is made: ${messageOf(error)}; let this user read them (systemd: no ProtectKernelModules), or give an initramfs of your own`;
    throw new MicroVmError("file-unusable", text, { input: "kernel", cause: error });
  }
}

async function madeInitramfs(request: InitramfsRequest): Promise<GeneratedInitramfs> {
  const { facts, modules, optionalModules, cacheDirectory } = request;
  const recipe = [
    RECIPE_VERSION,
    facts.realPath,
    facts.release,
    facts.processor,
    modules,
    optionalModules,
    initScript,
    dhcpScript,
  ];
  const key = sha256(JSON.stringify(recipe)).slice(0, 32);
  const notePath = join(cacheDirectory, `initramfs-${key}.json`);
  const remembered = await keptIn(cacheDirectory, () => readNote(notePath));
  if (remembered !== undefined && (await isCurrent(remembered, cacheDirectory))) {
    return generated(cacheDirectory, remembered.sha256);
  }

  const wantsModules = modules.length + optionalModules.length > 0;
  const folder = wantsModules ? await findModules(facts) : undefined;
  const busybox = await findBusybox(facts.processor);
  const loaded = folder === undefined ? [] : await readModules(folder, modules, optionalModules);
  const sources = [busybox, ...loaded].map(({ path, stamp }) => [path, stamp] as const);
  if (folder !== undefined) sources.push([folder.orderPath, folder.orderStamp]);

  const archive = cpioArchive(initramfsEntries(busybox, loaded));
  const digest = sha256(archive);
  const note: Remembered = { sha256: digest, size: archive.length, sources };
  await keptIn(cacheDirectory, async () => {
    await mkdir(cacheDirectory, { recursive: true, mode: 0o700 });
    await writeByRename(archivePath(cacheDirectory, digest), archive);
    await writeByRename(notePath, Buffer.from(JSON.stringify(note)));
  });
  return generated(cacheDirectory, digest);
}

/** What is in the archive. Pure. */
export function initramfsEntries(busybox: Busybox, modules: readonly Module[]): CpioEntry[] {
  const folders = ["bin", "dev", "lower", "modules", "newroot", "proc", "stateful", "sys"];
  const order = modules
    .map(({ name, required }) => `${name} ${required ? "required" : "optional"}\n`)
    .join("");
  return [
    ...folders.map((path): CpioEntry => ({ type: "directory", path, mode: 0o755 })),
    // The kernel opens it as the standard streams of /init before anything is mounted.
    { type: "character-device", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
    file("bin/busybox", 0o755, busybox.content),
    ...initApplets.map((name): CpioEntry => ({ type: "link", path: `bin/${name}`, target: "busybox" })),
    file("init", 0o755, initScript),
    file("dhcp", 0o755, dhcpScript),
    file("modules/order", 0o644, order),
    ...modules.map(({ name, content }) => file(`modules/${name}.ko`, 0o644, content)),
  ];
}

function file(path: string, mode: number, content: Buffer | string): CpioEntry {
  return { type: "file", path, mode, content: Buffer.from(content) };
}

function archivePath(cacheDirectory: string, digest: string): string {
  return join(cacheDirectory, `initramfs-${digest}.cpio`);
}

function generated(cacheDirectory: string, digest: string): GeneratedInitramfs {
  return { path: archivePath(cacheDirectory, digest), sha256: digest, generated: true };
}

async function keptIn<T>(cacheDirectory: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (systemCodeOf(error) === undefined) throw error;
    throw new MicroVmError(
      "state-directory",
      `an initramfs for this kernel was to be kept in ${cacheDirectory}: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

async function readNote(path: string): Promise<Remembered | undefined> {
  try {
    const note: unknown = JSON.parse(await readFile(path, "utf8"));
    return isNote(note) ? note : undefined;
  } catch (error) {
    // Nothing remembered, or a note that a crash or a hand has torn: the initramfs is made anew.
    if (leadsNowhere(error) || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function isNote(value: unknown): value is Remembered {
  if (typeof value !== "object" || value === null) return false;
  const { sha256: digest, size, sources } = value as Partial<Record<keyof Remembered, unknown>>;
  return typeof digest === "string" && typeof size === "number" && Array.isArray(sources);
}

async function isCurrent(note: Remembered, cacheDirectory: string): Promise<boolean> {
  const archive = await statIfThere(archivePath(cacheDirectory, note.sha256));
  // Archives get a fixed time when they are written, so that a later write shows.
  if (archive === undefined || archive.size !== note.size || archive.mtimeMs !== ARCHIVE_TIME_MS)
    return false;
  const now = await Promise.all(note.sources.map(([path]) => stampOf(path)));
  return note.sources.every(([, stamp], index) => stamp === now[index]);
}

const ARCHIVE_TIME_MS = 0;

async function writeByRename(path: string, content: Buffer): Promise<void> {
  const temporary = `${path}.${process.pid}.${randomBytes(4).toString("hex")}`;
  try {
    await writeFile(temporary, content, { mode: 0o600, flag: "wx", flush: true });
    await utimes(temporary, 0, ARCHIVE_TIME_MS / 1000);
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
}

async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (systemCodeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function sha256(bytes: Buffer | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}
