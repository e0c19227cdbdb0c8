/** XDR, the encoding of all that follows (RFC 4506): what RPC, portmap, MOUNT and NFS need of it. */

/** The bytes are not what the XDR type asks for. */
export class XdrError extends Error {
  override readonly name = "XdrError";
}

/** Unsigned integers, big-endian, 4 bytes each (RFC 4506 section 4.2). */
export function encodeUint32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, index) => bytes.writeUInt32BE(value, 4 * index));
  return bytes;
}

/** An unsigned hyper integer, 8 bytes (RFC 4506 section 4.5). */
export function encodeUint64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

/** Variable-length opaque data or, as UTF-8, a string: length, bytes, zeros up to a multiple of 4 (sections 4.10, 4.11). */
export function encodeOpaque(data: Uint8Array | string): Buffer {
  const content = typeof data === "string" ? Buffer.from(data, "utf8") : data;
  const bytes = Buffer.alloc(4 + padded(content.length));
  bytes.writeUInt32BE(content.length);
  bytes.set(content, 4);
  return bytes;
}

/** Reads one XDR value after the other; every read is bounded by the bytes that are there. */
export class XdrReader {
  #offset = 0;

  constructor(private readonly bytes: Buffer) {}

  /** @throws {XdrError} when the data ends before it. */
  uint32(): number {
    return this.#take(4).readUInt32BE();
  }

  /** @throws {XdrError} when the data ends before it. */
  uint64(): bigint {
    return this.#take(8).readBigUInt64BE();
  }

  /** @throws {XdrError} for anything but 0 and 1 (RFC 4506 section 4.4). */
  bool(): boolean {
    const value = this.uint32();
    if (value > 1) throw new XdrError(`a boolean is ${value}`);
    return value === 1;
  }

  /**
   * @param maximum Largest length that the type allows, in bytes.
   * @returns A copy: what was read does not keep the whole record alive.
   * @throws {XdrError} when it is longer than `maximum` or than the data.
   */
  opaque(maximum: number): Buffer {
    const length = this.uint32();
    if (length > maximum) throw new XdrError(`a field of ${length} bytes where at most ${maximum} may be`);
    return Buffer.from(this.#take(padded(length)).subarray(0, length));
  }

  /** As {@link opaque}, read as UTF-8. */
  string(maximum: number): string {
    return this.opaque(maximum).toString("utf8");
  }

  /** Skips fixed-length data of `length` bytes, a multiple of 4. */
  skip(length: number): void {
    this.#take(length);
  }

  #take(length: number): Buffer {
    const end = this.#offset + length;
    if (end > this.bytes.length) {
      throw new XdrError(
        `the answer ends after ${this.bytes.length} bytes, ${end - this.bytes.length} short`,
      );
    }
    const taken = this.bytes.subarray(this.#offset, end);
    this.#offset = end;
    return taken;
  }
}

function padded(length: number): number {
  return Math.ceil(length / 4) * 4;
}
