import { describe, expect, it } from "vitest";
import { parse } from "../../../provider/server/parse.js";
import { Refusal } from "../../../provider/server/refusal.js";
import {
  commandRequest,
  startVmRequest,
  updateVmRequest,
  uploadRequest,
} from "../../../provider/server/wire.js";

describe("a body", () => {
  it("is what it says", () => {
    expect(parse(updateVmRequest, { status: "paused" }, "the body")).toEqual({ status: "paused" });
    expect(parse(startVmRequest.optional(), undefined, "the body")).toBeUndefined();
  });

  it.each([
    [startVmRequest, { nfsPort: "11111" }, 'nfsPort: expected a number, got "11111" (string)'],
    [startVmRequest, { nfsPort: 1.5 }, "nfsPort: expected an integer, got 1.5 (number)"],
    [startVmRequest, { useNfsRoot: "yes" }, 'useNfsRoot: expected true or false, got "yes" (string)'],
    [startVmRequest, { nfsMountPort: "x" }, 'nfsMountPort: expected a port or "rpcbind", got "x" (string)'],
    [startVmRequest, { kernelArgs: "x" }, 'kernelArgs: expected a list, got "x" (string)'],
    [
      startVmRequest,
      { rootFs: "/x" },
      'the body has an unknown field "rootFs", perhaps "rootfs" is meant; see /openapi.yaml',
    ],
    [startVmRequest, null, "the body: expected an object, got nothing"],
    [startVmRequest, [], "the body: expected an object, got [] (list)"],
    [updateVmRequest, {}, 'status: expected "stopped" or "paused" or "resume", got nothing'],
    [commandRequest, { cmd: "x", timeoutSeconds: 0 }, "timeoutSeconds: expected at least 1, got 0 (number)"],
    [uploadRequest, { files: [{ path: 1 }] }, "files.0.path: expected a text, got 1 (number)"],
    [
      uploadRequest,
      { files: [{ path: "a", content: "", mode: 1 }] },
      'files.0 has an unknown field "mode"; see /openapi.yaml',
    ],
  ])("is refused with what was expected and what was found: %#", (schema, value, text) => {
    let refusal: unknown;
    try {
      parse(schema, value, "the body");
    } catch (error) {
      refusal = error;
    }
    expect(refusal).toBeInstanceOf(Refusal);
    expect(refusal).toMatchObject({
      statusCode: 400,
      code: "invalid-input",
      message: `${text} [invalid-input]`,
    });
  });
});
