import * as pulumi from "@pulumi/pulumi";
import { beforeAll, describe, expect, it } from "vitest";
import { MicroVm } from "../../sdk/index.js";

describe("while a MicroVm is made", () => {
  beforeAll(async () => {
    await pulumi.runtime.setMocks({
      newResource: ({ inputs }) => ({ id: "vm/0123456789abcdef", state: inputs }),
      call: ({ inputs }) => inputs,
    });
  });

  it("an error still has the trace of the program's line that made it", () => {
    const limit = Error.stackTraceLimit;
    let stack = "";
    try {
      void new MicroVm("", { kernel: "/boot/vmlinuz" });
    } catch (error) {
      stack = error instanceof Error ? (error.stack ?? "") : "";
    }
    expect(stack).toContain("Missing resource name");
    expect(stack).toContain("traces.test.ts");
    expect(Error.stackTraceLimit).toBe(limit);
  });

  it("leaves the limit of traces as it was", () => {
    const limit = Error.stackTraceLimit;
    void new MicroVm("vm", { kernel: "/boot/vmlinuz" });
    expect(Error.stackTraceLimit).toBe(limit);
  });
});
