import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import {
  encodeRecord,
  MAX_RECORD_BYTES,
  RecordAssembler,
  RecordError,
} from "../../../../provider/preflight/nfs/record.js";
import { bytes } from "./bytes.js";

const MEGABYTE = 1024 * 1024;

function assemble(...chunks: Buffer[]): string[] {
  const assembler = new RecordAssembler();
  return chunks.flatMap((chunk) => [...assembler.push(chunk)].map((record) => record.toString("hex")));
}

describe("record marking (RFC 5531 section 11)", () => {
  it("marks a message as one last fragment", () => {
    expect(encodeRecord(bytes("0102030405")).toString("hex")).toBe("800000050102030405");
  });

  it("puts fragments together, wherever the stream is cut", () => {
    const stream = bytes("00000002 0102 00000000 80000001 03 80000000 80000002 0405");
    expect(assemble(stream)).toEqual(["010203", "", "0405"]);
    expect(assemble(...Array.from(stream, (byte) => Buffer.from([byte])))).toEqual(["010203", "", "0405"]);
  });

  it("says of text that it is text", () => {
    expect(() => assemble(Buffer.from("HTTP/1.1 400 Bad Request"))).toThrow(/text that begins with "HTTP"/);
  });

  it.each([
    ["a length of 2 GiB", bytes("ffffffff")],
    ["a length of 2 GiB in a fragment that is not the last", bytes("7fffffff")],
    ["fragments that sum up to too much", Buffer.concat([bytes("00000001 00"), bytes("80040000")])],
    ["empty fragments without end", Buffer.alloc(4 * 2000)],
  ])("refuses %s", (_name, stream) => {
    expect(() => assemble(stream)).toThrow(RecordError);
  });

  it("takes a record of the largest length", () => {
    const assembler = new RecordAssembler();
    const [record] = assembler.push(encodeRecord(Buffer.alloc(MAX_RECORD_BYTES, 7)));
    expect(record?.length).toBe(MAX_RECORD_BYTES);
    expect(assembler.heldBytes).toBeLessThan(MEGABYTE);
  });

  it("gives back what was cut into fragments and chunks in any way", () => {
    const message = fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(fc.array(message, { maxLength: 4 }), fc.integer({ min: 1, max: 50 }), (messages, size) => {
        const stream = Buffer.concat(
          messages.flatMap((fragments) =>
            fragments.map((fragment, index) => {
              const record = encodeRecord(fragment);
              if (index < fragments.length - 1) record.writeUInt8(0, 0);
              return record;
            }),
          ),
        );
        const chunks: Buffer[] = [];
        for (let at = 0; at < stream.length; at += size) chunks.push(stream.subarray(at, at + size));
        expect(assemble(...chunks)).toEqual(
          messages.map((fragments) => Buffer.concat(fragments).toString("hex")),
        );
      }),
      { numRuns: 1000 },
    );
  });

  it("never holds a megabyte, whatever comes", () => {
    const header = fc.constantFrom("00000000", "7fffffff", "ffffffff", "0003ffff", "00020000", "80000010");
    const chunk = fc.oneof(
      header.map(bytes),
      fc.uint8Array({ maxLength: 32 }).map((data) => Buffer.from(data)),
      fc.integer({ min: 1, max: 65_536 }).map((length) => Buffer.alloc(length, 1)),
    );
    fc.assert(
      fc.property(fc.array(chunk, { maxLength: 20 }), (chunks) => {
        const assembler = new RecordAssembler();
        try {
          for (const piece of chunks) {
            for (const record of assembler.push(piece)) {
              expect(record.length).toBeLessThanOrEqual(MAX_RECORD_BYTES);
            }
            expect(assembler.heldBytes).toBeLessThan(MEGABYTE);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(RecordError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
