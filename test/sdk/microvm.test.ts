import * as pulumi from "@pulumi/pulumi";
import { beforeAll, describe, expect, it } from "vitest";

import { MicroVm, type MicroVmArgs } from "../../sdk/index.js";
import { microVmProvider } from "../../sdk/pointer.js";
import { recordRegistrations, type Registered, whenRegistered } from "./registered.js";

let registered: ReadonlyMap<string, Registered>;

beforeAll(async () => {
  registered = await recordRegistrations();
});

describe("MicroVm", () => {
  it("registers under its own type, with a pointer to this package for a provider", async () => {
    await whenRegistered(new MicroVm("web", { kernel: "/boot/vmlinuz" }));
    const { type, inputs } = registered.get("web") ?? {};
    expect(type).toBe("microvm:index:MicroVm");
    expect(inputs?.["__provider"]).toBe('exports.handler=()=>require("pulumi-microvm/provider")');
    expect(Buffer.byteLength(microVmProvider)).toBeLessThanOrEqual(64);
    expect(inputs?.["owner"]).toEqual({
      organization: expect.any(String),
      urn: "urn:pulumi:dev::shop::microvm:index:MicroVm::web",
      program: process.cwd(),
    });
  });

  it("sends the arguments as they are, and nothing for those left out", async () => {
    const args: MicroVmArgs = {
      kernel: "/boot/vmlinuz",
      useNfsRoot: true,
      nfsServer: "127.0.0.1",
      nfsPort: 2049,
    };
    await whenRegistered(new MicroVm("plain", args));
    const { inputs = {} } = registered.get("plain") ?? {};
    const sent = Object.entries(inputs).filter(([, value]) => value !== undefined && value !== null);
    expect(Object.fromEntries(sent.filter(([name]) => name !== "owner" && name !== "__provider"))).toEqual(
      args,
    );
  });

  it("names the inputs that are secrets", async () => {
    const kernelArgs = [pulumi.secret("token=x")];
    await whenRegistered(new MicroVm("secret", { kernel: "/boot/vmlinuz", kernelArgs }));
    expect(registered.get("secret")?.inputs["secretInputs"]).toEqual(["kernelArgs"]);
  });

  it("says that the new VM may come first only when the resource options do", async () => {
    await whenRegistered(new MicroVm("first", { kernel: "/k" }, { deleteBeforeReplace: false }));
    await whenRegistered(new MicroVm("last", { kernel: "/k" }, { deleteBeforeReplace: true }));
    expect(registered.get("first")?.inputs["createFirst"]).toBe(true);
    expect(registered.get("last")?.inputs["createFirst"]).toBeUndefined();
  });

  it("refuses values for what the provider derives", () => {
    const args = { kernel: "/k", cmdline: "console=ttyS0", observed: "running" };
    expect(() => new MicroVm("derived", args as MicroVmArgs)).toThrow(
      "derived: cmdline, observed: expected no value for what the provider derives; leave it out",
    );
  });
});
