import { describe, expect, it } from "vitest";
import { atBorder } from "../../provider/border.js";
import { MicroVmError } from "../../provider/errors.js";

/** What the dynamic provider host prints of an error that check, diff, read or delete throws. */
const printed = async (reason: unknown): Promise<string> => {
  const fails = (): Promise<never> => Promise.reject(reason);
  try {
    await atBorder(fails)();
  } catch (caught) {
    return `${String(caught)}: ${(caught as Error).stack}`;
  }
  throw new Error("nothing was thrown");
};

describe("an error at the border", () => {
  it("is its message with its code, once, and no stack trace", async () => {
    const error = new MicroVmError("other-host", "vm is kept elsewhere", { cause: new Error("deeper") });
    expect(await printed(error)).toBe("pulumi-microvm: vm is kept elsewhere [other-host]");
  });

  it("names its input, and has the code behind the first of several lines", async () => {
    const error = new MicroVmError("boot-timeout", "no proof.\nThe last 1 lines:\n  | Linux", {
      input: "readiness.timeoutSeconds",
    });
    expect(await printed(error)).toBe(
      "pulumi-microvm: readiness.timeoutSeconds: no proof. [boot-timeout]\nThe last 1 lines:\n  | Linux",
    );
  });

  it("keeps code, input and cause for whoever catches it", async () => {
    const error = new MicroVmError("port-taken", "taken", { input: "portForwards" });
    const work = atBorder(async (name: string) => Promise.reject(name === "vm" ? error : undefined));
    await expect(work("vm")).rejects.toMatchObject({
      code: "port-taken",
      input: "portForwards",
      message: "portForwards: taken [port-taken]",
      cause: error,
    });
  });

  it("is a fault to report where nobody expected it, with the one place that threw it", async () => {
    const text = await printed(new TypeError("x is not a function"));
    expect(text).toMatch(
      /^pulumi-microvm: unexpected: x is not a function \(at .*border\.test\.ts:\d+:\d+\)?\). Please report this \[internal-error\]$/,
    );
    expect(await printed("a text")).toBe(
      "pulumi-microvm: unexpected: a text. Please report this [internal-error]",
    );
  });

  it("hands on what succeeds", async () => {
    expect(await atBorder(async (a: number, b: number) => Promise.resolve(a + b))(1, 2)).toBe(3);
  });
});
