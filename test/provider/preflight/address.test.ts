import { describe, expect, it } from "vitest";
import { resolveServer } from "../../../provider/preflight/address.js";

describe("the address of a server", () => {
  it("is an IPv4 address as it stands", async () => {
    expect(await resolveServer("192.0.2.7", undefined)).toBe("192.0.2.7");
    expect(await resolveServer("192.0.2.7", "192.0.2.8")).toBe("192.0.2.7");
  });

  it("is what its name stands for", async () => {
    expect(await resolveServer("localhost", undefined)).toBe("127.0.0.1");
  });

  it("stays the one in use only while the name lists it", async () => {
    expect(await resolveServer("localhost", "127.0.0.1")).toBe("127.0.0.1");
    expect(await resolveServer("localhost", "192.0.2.7")).toBe("127.0.0.1");
  });

  it("is an error where the name stands for none, each time it is asked", async () => {
    for (const _ of [1, 2]) {
      await expect(resolveServer("nowhere.invalid", "192.0.2.7")).rejects.toMatchObject({
        name: "MicroVmError",
        code: "nfs-unreachable",
        input: "nfsServer",
        message: expect.stringMatching(
          /^nfsServer: expected a name with an IPv4 address, got "nowhere\.invalid" \(\w+\): correct it, or give the address$/,
        ),
      });
    }
  });
});
