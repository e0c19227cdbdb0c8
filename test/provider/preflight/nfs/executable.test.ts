import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { inspectExecutable, machineName, runsOn } from "../../../../provider/preflight/nfs/executable.js";
import { elfFile } from "./elf.js";

const why = (head: Buffer | string): string => {
  const result = inspectExecutable(Buffer.from(head));
  if (result.format !== "unknown") throw new Error(`it is ${result.format}`);
  return result.why;
};

describe("the first bytes of a program", () => {
  it("reads the machine of a static program", () => {
    expect(inspectExecutable(elfFile({ machine: 62 }))).toEqual({ format: "elf", machine: 62 });
  });

  it.each([
    ["64 bit, little-endian", { machine: 183, interpreter: "/lib/ld-linux-aarch64.so.1" }],
    ["32 bit, little-endian", { machine: 40, bits: 32, interpreter: "/lib/ld-linux-armhf.so.3" }],
    ["64 bit, big-endian", { machine: 22, bigEndian: true, interpreter: "/lib/ld64.so.1" }],
  ] as const)("finds the dynamic loader (%s)", (_name, fields) => {
    const { machine, interpreter } = fields;
    expect(inspectExecutable(elfFile({ ...fields, type: 3 }))).toEqual({
      format: "elf",
      machine,
      interpreter,
    });
  });

  it.each([
    ["#!/bin/sh\necho", "/bin/sh"],
    ["#! \t/usr/bin/env python3\n", "/usr/bin/env"],
    ["#!bin/sh", "bin/sh"],
    ["#!/bin/sh\0rest", "/bin/sh"],
  ])("finds the interpreter of %j", (text, interpreter) => {
    expect(inspectExecutable(Buffer.from(text))).toEqual({ format: "script", interpreter });
  });

  it.each([
    ["an empty file", "", /empty/],
    ["a text", "echo hello\n", /neither an ELF program nor a script/],
    ["a #! without an interpreter", "#! \n/bin/sh", /names no interpreter/],
    ["a #! line that the kernel would cut", `#!/${"a".repeat(300)}\n`, /longer than/],
    ["an object file", elfFile({ machine: 62, type: 1 }), /no program/],
    ["an ELF file that ends in its header", elfFile({ machine: 62 }).subarray(0, 40), /damaged/],
    ["an ELF file of an unknown class", Buffer.from(elfFile({ machine: 62 })).fill(9, 4, 5), /damaged/],
  ])("says what is wrong with %s", (_name, head, expected) => {
    expect(why(head)).toMatch(expected);
  });

  it("knows which programs a processor runs", () => {
    expect([62, 3, 183].map((machine) => runsOn("x86_64", machine))).toEqual([true, true, false]);
    expect([183, 40, 62].map((machine) => runsOn("aarch64", machine))).toEqual([true, true, false]);
    expect([machineName(183), machineName(4711)]).toEqual(["aarch64", "machine 4711"]);
  });

  it("takes any bytes without an exception, also damaged program headers", () => {
    const good = elfFile({ machine: 62, interpreter: "/lib64/ld-linux-x86-64.so.2" });
    const damaged = fc
      .tuple(fc.nat(good.length - 4), fc.constantFrom(0, 0xff, 0x7f, 0x80))
      .map(([at, byte]) => Buffer.from(good).fill(byte, at, at + 4));
    const anything = fc.oneof(
      damaged,
      fc.uint8Array({ maxLength: 300 }).map((data) => Buffer.from(data)),
      fc.uint8Array({ maxLength: 300 }).map((data) => Buffer.concat([Buffer.from("#!"), data])),
    );
    fc.assert(
      fc.property(anything, (head) => {
        expect(["elf", "script", "unknown"]).toContain(inspectExecutable(head).format);
      }),
      { numRuns: 2000 },
    );
  });
});
