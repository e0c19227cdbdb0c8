import * as pulumi from "@pulumi/pulumi";
import { beforeAll, describe, expect, it } from "vitest";

import { AgentFs, MicroVm, NfsExport } from "../../sdk/index.js";
import { recordRegistrations, type Registered, whenRegistered } from "./registered.js";

let registered: ReadonlyMap<string, Registered>;

const place = { nfsServer: "127.0.0.1", nfsPort: 20_000, nfsPath: "/", nfsMountPort: 20_001 };

beforeAll(async () => {
  registered = await recordRegistrations({ ...place, stateDirectory: "/state" });
});

/** What is registered of a resource and is not left out. */
function sent(name: string): Record<string, unknown> {
  const { inputs = {} } = registered.get(name) ?? {};
  return Object.fromEntries(
    Object.entries(inputs).filter(([, value]) => value !== undefined && value !== null),
  );
}

describe("AgentFs", () => {
  it("registers under its own type, with a pointer of its own and its id by another name", async () => {
    await whenRegistered(new AgentFs("fs", { id: "work", baseDirectory: "/srv/root" }));
    expect(registered.get("fs")?.type).toBe("microvm:index:AgentFs");
    expect(sent("fs")).toEqual({
      agentId: "work",
      baseDirectory: "/srv/root",
      __provider: 'exports.handler=()=>require("pulumi-microvm/agentfs")',
      owner: {
        organization: expect.any(String),
        urn: "urn:pulumi:dev::shop::microvm:index:AgentFs::fs",
        program: process.cwd(),
      },
    });
  });

  it("makes a secret of its key, whether the program says so or not", async () => {
    await whenRegistered(new AgentFs("locked", { id: "work", key: "00".repeat(32), cipher: "aegis256" }));
    const { key } = sent("locked");
    expect(JSON.stringify(key)).toContain('"4dabf18193072939515e22adb298388d"'); // the engine's mark of a secret
  });

  it("names a secret input, which the provider refuses", async () => {
    await whenRegistered(new AgentFs("hushed", { id: pulumi.secret("work") }));
    expect(sent("hushed")["secretInputs"]).toEqual(["agentId"]);
  });
});

describe("NfsExport", () => {
  it("registers under its own type, with a pointer of its own and its arguments as they are", async () => {
    const args = { directory: "/srv/root", port: 2050, allowedClients: ["127.0.0.1"] };
    await whenRegistered(new NfsExport("root", args));
    expect(registered.get("root")?.type).toBe("microvm:index:NfsExport");
    expect(sent("root")).toEqual({
      ...args,
      __provider: 'exports.handler=()=>require("pulumi-microvm/nfs")',
      owner: {
        organization: expect.any(String),
        urn: "urn:pulumi:dev::shop::microvm:index:NfsExport::root",
        program: process.cwd(),
      },
    });
  });

  it("gives its root as arguments of a MicroVm, which is tied to it by its id", async () => {
    const { root } = new NfsExport("tied", { directory: "/srv/root" });
    const vm = new MicroVm("vm", { kernel: "/boot/vmlinuz", useNfsRoot: true, ...root });
    await whenRegistered(vm);
    expect(sent("vm")).toMatchObject({ ...place, nfsExport: "tied/0123456789abcdef" });
    expect(registered.get("vm")?.provider).toBe(registered.get("tied")?.provider);
  });
});
