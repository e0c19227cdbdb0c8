import { describe, expect, it } from "vitest";
import { kernelWords, nfsroot } from "./kernel-words.js";

describe("the kernel's way to read its command line", () => {
  it.each([
    ["a b=c", [{ name: "a" }, { name: "b", value: "c" }]],
    ["  a\t\nb ", [{ name: "a" }, { name: "b" }]],
    ['a="b c" d', [{ name: "a", value: "b c" }, { name: "d" }]],
    ['"a b=c" d', [{ name: "a b", value: "c" }, { name: "d" }]],
    ['a="b" c" d', [{ name: "a", value: "b" }, { name: 'c" d' }]],
    ["a=b=c", [{ name: "a", value: "b=c" }]],
    ["=a=b", [{ name: "=a", value: "b" }]],
    ["a=", [{ name: "a", value: "" }]],
    ["a\u00a0b", [{ name: "a" }, { name: "b" }]],
    ["", []],
  ])("finds in %j the words %j", (line, words) => {
    expect(kernelWords(line)).toEqual(words);
  });

  it("ends the path of nfsroot= at the first comma", () => {
    expect(nfsroot("10.0.0.1:/a:b,tcp,port=1")).toEqual({
      server: "10.0.0.1",
      path: "/a:b",
      options: ["tcp", "port=1"],
    });
  });
});
