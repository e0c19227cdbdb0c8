/** What a kernel image is and what it was built with, read from the image and the files that go with it. */

import { constants, type Stats } from "node:fs";
import { type FileHandle, open, realpath } from "node:fs/promises";
import { join } from "node:path";
import { MicroVmError, systemCodeOf } from "../../errors.js";
import { leadsNowhere } from "../../host/storage.js";
import {
  configurationFilesOf,
  embeddedConfiguration,
  type KernelConfiguration,
  type KernelOptions,
  readConfigurationFile,
} from "./configuration.js";
import {
  HEADER_LENGTH,
  type ImageHeader,
  isArm64Image,
  type KernelFormat,
  NotAKernel,
  type Payload,
  type Processor,
  readImageHeader,
  releaseFrom,
} from "./image.js";
import { CannotUnpack, unpack } from "./unpack.js";

/** What is known of a kernel image. */
export interface KernelFacts {
  /** The path as it was given. */
  readonly path: string;
  /** The path with all links followed. */
  readonly realPath: string;
  readonly processor: Processor;
  readonly format: KernelFormat;
  /** Release string, as `uname -r` prints it in the guest; absent where the image does not tell. */
  readonly release?: string;
  readonly configuration: KernelConfiguration;
}

const inspected = new Map<string, Promise<KernelFacts>>();

/**
 * Inspects a kernel image: a vmlinux (ELF), a bzImage, an arm64 Image or a gzip'ed one.
 *
 * The configuration is read from `config-RELEASE` beside the image, in /boot or in /lib/modules; else from the
 * image itself (CONFIG_IKCONFIG), which has to be unpacked for that; else from a file `config` beside it. Results are
 * kept for the life of the process, per path, size, times and inode.
 *
 * @param path Absolute path of the image.
 * @throws MicroVmError `file-unusable`, input `kernel`: missing, unreadable, or not a kernel.
 */
export async function inspectKernel(path: string): Promise<KernelFacts> {
  const file = await openKernel(path);
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw unusable(path, "is not a regular file");
    const key = [path, stats.size, stats.mtimeMs, stats.ctimeMs, stats.dev, stats.ino].join("\n");
    let facts = inspected.get(key);
    if (facts === undefined) {
      facts = inspectOpen(path, file, stats);
      inspected.set(key, facts);
      // A failure is not kept: what was in the way may be gone at the next call.
      facts.catch(() => inspected.delete(key));
    }
    return await facts;
  } finally {
    await file.close();
  }
}

async function openKernel(path: string): Promise<FileHandle> {
  try {
    // Without O_NONBLOCK, opening a named pipe would wait for its writer.
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const code = systemCodeOf(error);
    if (leadsNowhere(error)) {
      throw unusable(path, "does not exist; give the absolute path of a kernel image on this host", error);
    }
    if (code === "EACCES" || code === "EPERM") {
      throw unusable(
        path,
        "cannot be read by this user (Ubuntu keeps kernels at mode 0600); copy it to a place of your own, " +
          `or run: sudo chmod 0644 ${path}`,
        error,
      );
    }
    throw unusable(path, `cannot be opened (${code ?? String(error)})`, error);
  }
}

async function inspectOpen(path: string, file: FileHandle, stats: Stats): Promise<KernelFacts> {
  const head = await readBytes(file, 0, Math.min(HEADER_LENGTH, stats.size));
  let header: ImageHeader;
  try {
    header = readImageHeader(head, stats.size);
  } catch (error) {
    if (error instanceof NotAKernel)
      throw unusable(path, `is not a kernel that can be booted: ${error.message}`, error);
    throw error;
  }
  const realPath = await realpath(path);
  const facts = { path, realPath, processor: header.processor, format: header.format };

  const early = header.release === undefined ? undefined : await fromFiles(realPath, header.release);
  if (early?.configuration !== undefined) {
    return { ...facts, release: header.release, configuration: early.configuration };
  }
  const image = await fromImage(path, file, header);
  const release = header.release ?? image.release;
  if (image.configuration !== undefined) return { ...facts, release, configuration: image.configuration };

  const late = early ?? (release === undefined ? undefined : await fromFiles(realPath, release));
  const beside = late?.configuration ? late : await readConfigurationFile([join(realPath, "..", "config")]);
  const reasons = [image.problem, ...(late?.problems ?? []), ...beside.problems].filter(
    (text) => text !== undefined,
  );
  const nowhere: KernelConfiguration = {
    found: false,
    reason: `no configuration was found in the image or in a file config-${release ?? "RELEASE"} beside it (${reasons.join("; ")})`,
  };
  return { ...facts, release, configuration: beside.configuration ?? nowhere };
}

function fromFiles(realPath: string, release: string): ReturnType<typeof readConfigurationFile> {
  return readConfigurationFile(configurationFilesOf(realPath, release));
}

/** What only the unpacked kernel tells. */
interface Inside {
  readonly release?: string;
  readonly configuration?: KernelConfiguration;
  /** Why there is no configuration. */
  readonly problem?: string;
}

async function fromImage(path: string, file: FileHandle, header: ImageHeader): Promise<Inside> {
  let release: string | undefined;
  for (const payload of header.payloads) {
    let bytes: Buffer;
    let options: KernelOptions | undefined;
    try {
      bytes = await unpackPayload(file, payload);
      options = embeddedConfiguration(bytes);
    } catch (error) {
      if (error instanceof CannotUnpack)
        return { release, problem: `the image was not searched: ${error.message}` };
      throw error;
    }
    if (header.format === "arm64-image-gzip" && !isArm64Image(bytes)) {
      throw unusable(path, "is not a kernel that can be booted: it is gzip data, but not of an arm64 Image");
    }
    release ??= bannerRelease(bytes);
    if (options !== undefined) return { release, configuration: { found: true, source: "image", options } };
  }
  if (header.format === "vmlinux" && release === undefined) {
    throw unusable(
      path,
      'is not a kernel that can be booted: it is an ELF program without a "Linux version" text',
    );
  }
  return { release, problem: "the image was built without CONFIG_IKCONFIG" };
}

async function unpackPayload(file: FileHandle, payload: Payload): Promise<Buffer> {
  if (payload.compression === "unknown") throw new CannotUnpack("its compression is not known");
  const bytes = await readBytes(file, payload.offset, payload.length);
  return payload.compression === "none" ? bytes : await unpack(bytes, payload.compression);
}

/** The release in the text that every kernel prints first: `Linux version 6.1.0-56-cloud-amd64 (…`. */
function bannerRelease(bytes: Buffer): string | undefined {
  const mark = "Linux version ";
  for (let at = bytes.indexOf(mark); at !== -1; at = bytes.indexOf(mark, at + 1)) {
    const release = releaseFrom(bytes.toString("latin1", at + mark.length, at + mark.length + 80));
    if (release !== undefined) return release;
  }
  return undefined;
}

async function readBytes(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, offset + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}

function unusable(path: string, found: string, cause?: unknown): MicroVmError {
  return new MicroVmError("file-unusable", `${path} ${found}`, { input: "kernel", cause });
}
