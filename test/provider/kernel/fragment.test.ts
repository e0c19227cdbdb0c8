import { readFile } from "node:fs/promises";

import { describe, expect, it } from "vitest";

import { OWN_FRAGMENT } from "../../../provider/kernel/build.js";
import { fragmentText, lostLines, mergeFragments, parseFragment } from "../../../provider/kernel/fragment.js";

describe("a fragment of a kernel configuration", () => {
  it("holds what is set and what is not, the last line of an option counting", () => {
    const text = 'CONFIG_A=y\n# a comment\n\n# CONFIG_B is not set\nCONFIG_C="x y"\nCONFIG_A=n\n';
    expect([...parseFragment(text, "f")]).toEqual([
      ["A", "n"],
      ["B", "n"],
      ["C", '"x y"'],
    ]);
  });

  it("is written as kconfig reads it", () => {
    const text = 'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x y"\nCONFIG_D=16\n';
    expect(fragmentText(parseFragment(text, "f"))).toBe(text);
    expect(fragmentText(parseFragment("CONFIG_A=n\n", "f"))).toBe("# CONFIG_A is not set\n");
  });

  it("is laid over another, each option once", () => {
    const merged = mergeFragments([
      parseFragment("CONFIG_A=y\nCONFIG_B=y\n", "f"),
      parseFragment("# CONFIG_A is not set\nCONFIG_C=y\n", "g"),
    ]);
    expect(fragmentText(merged)).toBe("# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=y\n");
  });

  it("names the lines that a configuration does not have", () => {
    const fragment = parseFragment(
      "CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n# CONFIG_D is not set\n",
      "f",
    );
    expect(lostLines(fragment, "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\n")).toEqual([
      "CONFIG_B=y",
      "# CONFIG_C is not set",
    ]);
  });

  it.each(["CONFIG_A", "A=y", "CONFIG_A=", "select CONFIG_A"])("is refused at the line %s", (line) => {
    expect(() => parseFragment(`# first\n${line}\n`, "my.config")).toThrow("in line 2 of my.config");
  });

  it("of this package asks for the five options of an NFS root", async () => {
    const own = parseFragment(await readFile(OWN_FRAGMENT, "utf8"), OWN_FRAGMENT);
    for (const name of ["NFS_FS", "NFS_V3", "ROOT_NFS", "IP_PNP", "IP_PNP_DHCP"]) {
      expect(own.get(name), name).toBe("y");
    }
  });
});
