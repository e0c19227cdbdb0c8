/** Unpacking what kernels and modules are packed with: gzip here, the rest by the host's own programs. */

import { spawn } from "node:child_process";
import { gunzip } from "node:zlib";
import { systemCodeOf } from "../../errors.js";

/** How a kernel's payload or a module is compressed. */
export type Compression = "gzip" | "xz" | "lzma" | "zstd" | "lz4" | "bzip2" | "lzo";

/** A kernel with debugging data is far below this once unpacked. */
const MAX_UNPACKED_BYTES = 512 * 1024 * 1024;
const MAX_SECONDS = 30;

/** The program for each compression, and the Debian package that brings it. */
const programs = {
  xz: { command: ["xz", "--decompress", "--stdout", "--single-stream"], package: "xz-utils" },
  lzma: { command: ["xz", "--decompress", "--stdout", "--format=lzma"], package: "xz-utils" },
  zstd: { command: ["zstd", "--decompress", "--stdout", "--quiet", "--long=31"], package: "zstd" },
  lz4: { command: ["lz4", "-d", "-c", "-q"], package: "lz4" },
  bzip2: { command: ["bzip2", "--decompress", "--stdout"], package: "bzip2" },
  lzo: { command: ["lzop", "--decompress", "--stdout"], package: "lzop" },
} as const satisfies Record<Exclude<Compression, "gzip">, { command: readonly string[]; package: string }>;

/** Why something could not be unpacked, for the person: the program that is missing, or its own words. */
export class CannotUnpack extends Error {}

/**
 * Unpacks bytes.
 *
 * @throws CannotUnpack when the program is not installed (the text names its Debian package), when it fails, or
 * when the result is larger than 512 MiB.
 */
export async function unpack(bytes: Buffer, compression: Compression): Promise<Buffer> {
  return compression === "gzip" ? await ungzip(bytes) : await runProgram(bytes, compression);
}

function ungzip(bytes: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    gunzip(bytes, { maxOutputLength: MAX_UNPACKED_BYTES }, (error, unpacked) => {
      if (error === null) resolve(unpacked);
      else reject(new CannotUnpack(`its gzip data is damaged (${error.message})`));
    });
  });
}

function runProgram(bytes: Buffer, compression: keyof typeof programs): Promise<Buffer> {
  const { command, package: packageName } = programs[compression];
  const [program, ...args] = command;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], timeout: MAX_SECONDS * 1000 });
    const chunks: Buffer[] = [];
    let length = 0;
    let words = "";
    child.on("error", (error) => {
      const missing = systemCodeOf(error) === "ENOENT";
      const reason = missing
        ? `the program ${program} is not installed (package ${packageName})`
        : error.message;
      reject(new CannotUnpack(`its ${compression} data cannot be unpacked: ${reason}`));
    });
    child.stdout.on("data", (chunk: Buffer) => {
      length += chunk.length;
      if (length > MAX_UNPACKED_BYTES) child.kill("SIGKILL");
      else chunks.push(chunk);
    });
    child.stderr.on("data", (chunk: Buffer) => {
      words = (words + chunk.toString()).slice(-200);
    });
    // A program that ends before it has read everything closes the pipe; its exit code tells the rest.
    child.stdin.on("error", (error) => {
      words ||= error.message;
    });
    child.on("close", (code, signal) => {
      if (code === 0) resolve(Buffer.concat(chunks, length));
      else {
        const reason = words.trim() || `${program} ended with ${signal ?? code}`;
        reject(new CannotUnpack(`its ${compression} data cannot be unpacked: ${reason}`));
      }
    });
    child.stdin.end(bytes);
  });
}
