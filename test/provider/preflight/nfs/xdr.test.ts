import { describe, expect, it } from "vitest";

import {
  encodeOpaque,
  encodeUint32,
  encodeUint64,
  XdrError,
  XdrReader,
} from "../../../../provider/preflight/nfs/xdr.js";
import { bytes } from "./bytes.js";

/** RFC 4506 section 7: the file "sillyprog" of john, interpreted by "lisp", holding "(quit)". */
const SILLYPROG = bytes(`
  00000009 73696c6c 7970726f 67000000 00000002 00000004 6c697370
  00000004 6a6f686e 00000006 28717569 74290000`);

describe("XDR", () => {
  it("encodes the example file of RFC 4506 to the byte", () => {
    const encoded = Buffer.concat([
      encodeOpaque("sillyprog"),
      encodeUint32(2),
      encodeOpaque("lisp"),
      encodeOpaque("john"),
      encodeOpaque(Buffer.from("(quit)")),
    ]);
    expect(encoded.toString("hex")).toBe(SILLYPROG.toString("hex"));
  });

  it("reads the example file of RFC 4506", () => {
    const reader = new XdrReader(SILLYPROG);
    expect(reader.string(255)).toBe("sillyprog");
    expect(reader.uint32()).toBe(2);
    expect(reader.string(255)).toBe("lisp");
    expect(reader.string(255)).toBe("john");
    expect(reader.opaque(65_535).toString()).toBe("(quit)");
  });

  it("encodes integers big-endian", () => {
    expect(encodeUint32(0xffff_ffff, 1).toString("hex")).toBe("ffffffff00000001");
    expect(encodeUint64(0x0102_0304_0506_0708n).toString("hex")).toBe("0102030405060708");
    expect(new XdrReader(bytes("fffffffffffffffe")).uint64()).toBe(0xffff_ffff_ffff_fffen);
  });

  it("refuses a boolean that is neither 0 nor 1", () => {
    expect(new XdrReader(bytes("00000001")).bool()).toBe(true);
    expect(() => new XdrReader(bytes("00000002")).bool()).toThrow(XdrError);
  });

  it("refuses a length beyond the type's maximum before it looks at the data", () => {
    expect(() => new XdrReader(bytes("ffffffff")).opaque(64)).toThrow(/4294967295 bytes where at most 64/);
  });

  it("refuses data that ends early, padding included", () => {
    expect(() => new XdrReader(bytes("000000")).uint32()).toThrow(/1 short/);
    expect(() => new XdrReader(bytes("00000005 61626364 65")).string(10)).toThrow(/3 short/);
    expect(() => new XdrReader(bytes("00000008")).skip(8)).toThrow(XdrError);
  });

  it("gives out copies", () => {
    const data = bytes("00000004 61626364");
    const opaque = new XdrReader(data).opaque(4);
    data.fill(0);
    expect(opaque.toString()).toBe("abcd");
  });
});
