import { once } from "node:events";
import { createServer } from "node:net";
import { describe, expect, it } from "vitest";
import { check } from "../../../provider/agentfs.js";
import { holderOf } from "../../../provider/exports/listening.js";
import { portOf } from "../../../provider/exports/ports.js";
import type { Values } from "../../../provider/plan/fields.js";
import { makeBase, newsOf, occupy, useExportBed } from "./export-bed.js";

const URN = "urn:pulumi:dev::shop::microvm:index:AgentFs::fs";

describe("the port of an export", () => {
  it("follows from its URN and its state directory: two people with one program on one host get two", () => {
    const port = portOf(URN, "/home/ada/.local/state/pulumi-microvm");
    expect(portOf(URN, "/home/ada/.local/state/pulumi-microvm")).toBe(port);
    expect(portOf(URN, "/home/grace/.local/state/pulumi-microvm")).not.toBe(port);
    expect(portOf(`${URN}2`, "/home/ada/.local/state/pulumi-microvm")).not.toBe(port);
    expect(port % 2).toBe(0);
  });
});

describe("a preview of an export on a port that is not free", () => {
  const bed = useExportBed();
  const reasonsOf = async (inputs: Values, name: string) => {
    const more = { agentId: name, baseDirectory: await makeBase(bed), binary: process.execPath };
    const { failures } = await check({}, newsOf("AgentFs", bed, { ...more, ...inputs }, name));
    return failures.map(({ property, reason }) => `${property} ${reason}`);
  };

  it("names the process that has it", async () => {
    const { inputs } = await check({}, newsOf("AgentFs", bed, { binary: process.execPath, agentId: "one" }));
    const port = Number(inputs["nfsPort"]);
    const leave = await occupy(port);
    expect(await reasonsOf({}, "fs")).toEqual([
      expect.stringMatching(
        new RegExp(
          `^port port: port ${port}/tcp of 127.0.0.1 is in use by process ${process.pid} \\(.+\\); give another port`,
        ),
      ),
    ]);
    await leave();
    expect(await reasonsOf({}, "fs")).toEqual([]);
  });

  it("names the other export of the program that has it as well", async () => {
    expect(await reasonsOf({ port: 19_998 }, "first")).toEqual([]);
    expect(await reasonsOf({ port: 19_998 }, "second")).toEqual([
      expect.stringMatching(
        /^port port: port 19998 is that of the export first-[0-9a-f]{8} \(urn:.*::first\)/,
      ),
    ]);
    expect(await reasonsOf({ port: 19_998, bind: "127.0.0.2" }, "second")).toEqual([]);
    expect(await reasonsOf({ port: 19_998 }, "first")).toEqual([]);
  });
});

describe("who listens on a port", () => {
  it.each(["127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"])("is found at %s", async (address) => {
    const server = createServer();
    server.listen(0, address);
    await once(server, "listening");
    const bound = server.address();
    const port = typeof bound === "object" ? (bound?.port ?? 0) : 0;
    expect(await holderOf("127.0.0.1", port)).toMatch(`process ${process.pid} (`);
    server.close();
    expect(await holderOf("127.0.0.1", port)).toBe("another program");
  });
});
