import * as pulumi from "@pulumi/pulumi";
import { beforeAll, describe, expect, it } from "vitest";

import { MicroVm, MicroVmSnapshot } from "../../sdk/index.js";
import { recordRegistrations, type Registered, whenRegistered } from "./registered.js";

let registered: ReadonlyMap<string, Registered>;

beforeAll(async () => {
  registered = await recordRegistrations({ stateDirectory: "/state" });
});

describe("MicroVmSnapshot", () => {
  it("registers under its own type, with its VM's id and a pointer of its own", async () => {
    const vm = new MicroVm("web", { kernel: "/boot/vmlinuz" });
    await whenRegistered(new MicroVmSnapshot("kept", { vm, trigger: "1" }));
    const { type, inputs, provider } = registered.get("kept") ?? {};
    expect(type).toBe("microvm:index:MicroVmSnapshot");
    expect(inputs).toMatchObject({
      vmId: "web/0123456789abcdef",
      stateDirectory: "/state",
      trigger: "1",
      __provider: 'exports.handler=()=>require("pulumi-microvm/snapshot")',
      owner: { urn: "urn:pulumi:dev::shop::microvm:index:MicroVmSnapshot::kept" },
    });
    expect(provider).toBe(registered.get("web")?.provider);
  });

  it("names a secret trigger, which the provider refuses", async () => {
    const vm = new MicroVm("other", { kernel: "/boot/vmlinuz" });
    await whenRegistered(new MicroVmSnapshot("hushed", { vm, trigger: pulumi.secret("x") }));
    expect(registered.get("hushed")?.inputs["secretInputs"]).toEqual(["trigger"]);
  });
});
