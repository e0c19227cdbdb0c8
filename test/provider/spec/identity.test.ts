import { describe, expect, it } from "vitest";
import { isVmName } from "../../../provider/host/paths.js";
import { specOf } from "../../../provider/spec/check.js";
import { contextInputs, contextOf } from "../../../provider/spec/context.js";
import { generatedName } from "../../../provider/spec/identity.js";
import { UNKNOWN } from "../../../provider/spec/validate.js";
import { checked, diskInputs, nfsInputs, owner, urn, type Inputs } from "./sample-inputs.js";

const urnOf = (name: string, parent = "") => `urn:pulumi:dev::shop::${parent}microvm:index:MicroVm::${name}`;

/** The checked inputs of a VM that exists, named as check names it. */
async function existing(inputs: Inputs, createFirst = false): Promise<Inputs> {
  const news = { owner, ...(createFirst ? { createFirst } : {}) };
  const { spec } = await checked(inputs, contextOf({}, news));
  return { ...spec, ...contextInputs({}, news) };
}

/** What the VM is called in the next check. */
async function nameOf(olds: Inputs, inputs: Inputs, news: Inputs): Promise<string> {
  return (await checked(inputs, contextOf(olds, { owner, ...news }))).spec.vmName;
}

describe("a generated name", () => {
  it("is the resource's name and 8 hex digits of its URN's SHA-256", () => {
    expect(generatedName(urn)).toBe("web-dd8e191d");
    expect(generatedName(urn)).toBe(generatedName(urn));
  });

  it("differs under two parents", () => {
    const names = ["", "shop:index:Shop$", "shop:index:Store$"].map((parent) =>
      generatedName(urnOf("web", parent)),
    );
    expect(new Set(names).size).toBe(3);
  });

  it.each([
    "web",
    "a",
    "Web Server",
    "-",
    "--",
    "-web-",
    "web.example.com",
    "../../etc",
    "ä",
    "日本",
    'quote"',
    "line\nfeed",
    "a::b",
    "x".repeat(54),
    "x".repeat(55),
    "x".repeat(500),
    `${"x".repeat(44)}-yyyyyyyyyy`,
    `${"x".repeat(53)}-y`,
    "0",
  ])("is one DNS label of at most 63 for %j, with and without the root's digest", (name) => {
    for (const generated of [generatedName(urnOf(name)), generatedName(urnOf(name), "01234567")]) {
      expect(generated).toSatisfy(isVmName);
      expect(generated).toMatch(/^[A-Za-z0-9]/);
    }
  });

  it("calls a resource without a usable letter vm", () => {
    expect(generatedName(urnOf("--"))).toMatch(/^vm-[0-9a-f]{8}$/);
  });

  it("carries the root's digest when the new VM is made first", async () => {
    const one = await existing(nfsInputs, true);
    const other = await existing({ ...nfsInputs, nfsPath: "/other" }, true);
    const disk = await existing(diskInputs, true);
    for (const { vmName } of [one, other, disk]) expect(vmName).toMatch(/^web-dd8e191d-[0-9a-f]{8}$/);
    expect(new Set([one["vmName"], other["vmName"], disk["vmName"]]).size).toBe(3);
    expect(await existing({ ...nfsInputs, vcpus: 2 }, true)).toMatchObject({ vmName: one["vmName"] });
  });

  it("with the root's digest is not known before the root is", async () => {
    const { unknown, values } = await specOf(
      { ...nfsInputs, nfsServer: UNKNOWN },
      contextOf({}, { owner, createFirst: true }),
    );
    expect([...unknown]).toEqual(["nfsServer", "vmName"]);
    expect(values).not.toHaveProperty("vmName");
  });

  it("gives way to one that the program gives", async () => {
    expect((await checked({ ...nfsInputs, vmName: "mine" })).spec.vmName).toBe("mine");
  });
});

describe("a name that was generated", () => {
  const renamed = { owner: { ...owner, urn: urnOf("frontend") } };

  it("is kept when an alias gives the resource another URN", async () => {
    const olds = await existing(nfsInputs);
    expect(await nameOf(olds, nfsInputs, renamed)).toBe("web-dd8e191d");
    const createFirst = await existing(nfsInputs, true);
    expect(await nameOf(createFirst, nfsInputs, { ...renamed, createFirst: true })).toBe(
      createFirst["vmName"],
    );
  });

  it("is made anew for a replacement, which check meets without olds", async () => {
    expect(await nameOf({}, nfsInputs, renamed)).toMatch(/^frontend-/);
  });

  it("is kept when the order of a replacement is chosen later, or no longer", async () => {
    const plain = await existing(nfsInputs);
    expect(await nameOf(plain, nfsInputs, { createFirst: true })).toBe(plain["vmName"]);
    const createFirst = await existing(nfsInputs, true);
    expect(await nameOf(createFirst, nfsInputs, {})).toBe(createFirst["vmName"]);
  });

  it("changes with the root when the new VM is made first", async () => {
    const inputs = { ...nfsInputs, nfsPath: "/other" };
    const plain = await existing(nfsInputs);
    expect(await nameOf(plain, inputs, { createFirst: true })).toMatch(/^web-dd8e191d-[0-9a-f]{8}$/);
    const createFirst = await existing(nfsInputs, true);
    expect(await nameOf(createFirst, inputs, { createFirst: true })).not.toBe(createFirst["vmName"]);
  });

  it("is no longer kept when the program took to another name and back", async () => {
    const olds = await existing({ ...nfsInputs, vmName: "mine" });
    expect(await nameOf(olds, nfsInputs, {})).toBe("web-dd8e191d");
  });
});

describe("the owner", () => {
  it("stays the one in the VM's record when an alias gives the resource another URN", async () => {
    const olds = await existing(nfsInputs);
    const moved = { organization: "other", urn: urnOf("frontend"), program: "/elsewhere" };
    expect(contextInputs(olds, { owner: moved })).toEqual({ owner });
    expect(contextInputs({}, { owner: moved })).toEqual({ owner: moved });
  });

  it.each([[undefined], [null], ["urn"], [{ urn }], [{ ...owner, program: 5 }]])(
    "of %j is refused: the resource was not made by this package's class",
    (wrong) => {
      expect(() => contextOf({}, { owner: wrong })).toThrow(
        "owner: expected the SDK's MicroVm class to name the resource",
      );
    },
  );
});
