/** Record marking: how RPC messages are cut out of a TCP stream (RFC 5531 section 11). */

/** A record may be this long, in bytes. The longest that we ask for is a list of exports. */
export const MAX_RECORD_BYTES = 256 * 1024;

const MAX_FRAGMENTS = 1024;
const LAST_FRAGMENT = 0x8000_0000;
const FIRST_CAPACITY = 4096;

/** The stream is not made of records, or of none that an answer of ours could be. */
export class RecordError extends Error {
  override readonly name = "RecordError";
}

/** One message as a record of a single fragment. */
export function encodeRecord(message: Uint8Array): Buffer {
  const record = Buffer.alloc(4 + message.length);
  record.writeUInt32BE((LAST_FRAGMENT | message.length) >>> 0);
  record.set(message, 4);
  return record;
}

/** Puts records together from the pieces of a stream, and never holds more than one of {@link MAX_RECORD_BYTES}. */
export class RecordAssembler {
  readonly #header = Buffer.alloc(4);
  #headerLength = 0;
  #fragmentLeft = 0;
  #isLast = false;
  #fragments = 0;
  /** One growing buffer, so that a stream of single bytes does not become as many objects. */
  #record = Buffer.alloc(FIRST_CAPACITY);
  #length = 0;

  /** Bytes of memory that it holds. */
  get heldBytes(): number {
    return this.#record.length + this.#header.length;
  }

  /**
   * @param chunk The next bytes of the stream.
   * @returns The records that it completes. They are copies.
   * @throws {RecordError} when a record is too long or comes in too many fragments.
   */
  *push(chunk: Buffer): Generator<Buffer, void, undefined> {
    let offset = 0;
    while (offset < chunk.length) {
      offset += this.#headerLength < 4 ? this.#takeHeader(chunk, offset) : this.#takeBody(chunk, offset);
      if (this.#headerLength === 4 && this.#fragmentLeft === 0) {
        this.#headerLength = 0;
        if (this.#isLast) yield this.#finish();
      }
    }
  }

  #takeHeader(chunk: Buffer, offset: number): number {
    const taken = chunk.copy(this.#header, this.#headerLength, offset, offset + 4 - this.#headerLength);
    this.#headerLength += taken;
    if (this.#headerLength === 4) this.#beginFragment(this.#header.readUInt32BE());
    return taken;
  }

  #beginFragment(header: number): void {
    const length = header & 0x7fff_ffff;
    if (this.#length + length > MAX_RECORD_BYTES) {
      throw new RecordError(
        this.#fragments === 0 && isText(this.#header)
          ? `it answers with text that begins with ${JSON.stringify(this.#header.toString("latin1"))}`
          : `it announces a record of ${this.#length + length} bytes`,
      );
    }
    this.#fragments += 1;
    if (this.#fragments > MAX_FRAGMENTS) {
      throw new RecordError(`it sends a record in more than ${MAX_FRAGMENTS} fragments`);
    }
    this.#isLast = header >= LAST_FRAGMENT;
    this.#fragmentLeft = length;
  }

  #takeBody(chunk: Buffer, offset: number): number {
    const taken = Math.min(this.#fragmentLeft, chunk.length - offset);
    const needed = this.#length + taken;
    if (needed > this.#record.length) {
      const larger = Buffer.alloc(Math.min(MAX_RECORD_BYTES, Math.max(needed, 2 * this.#record.length)));
      this.#record.copy(larger, 0, 0, this.#length);
      this.#record = larger;
    }
    chunk.copy(this.#record, this.#length, offset, offset + taken);
    this.#length = needed;
    this.#fragmentLeft -= taken;
    return taken;
  }

  #finish(): Buffer {
    const record = Buffer.from(this.#record.subarray(0, this.#length));
    this.#record = Buffer.alloc(FIRST_CAPACITY);
    this.#length = 0;
    this.#fragments = 0;
    return record;
  }
}

function isText(bytes: Buffer): boolean {
  return bytes.every((byte) => (byte >= 0x20 && byte < 0x7f) || byte === 0x0a || byte === 0x0d);
}
