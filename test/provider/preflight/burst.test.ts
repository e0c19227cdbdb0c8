import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { inBurst } from "../../../provider/preflight/burst.js";

const fail = () => inBurst("fails", async () => Promise.reject(new Error("no")));

describe("a question in a burst of checks", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }));
  afterEach(() => void vi.useRealTimers());

  it("is asked once for all that ask at about the same time, and anew afterwards", async () => {
    let asked = 0;
    const ask = () => inBurst("how often", async () => (asked += 1));
    expect(await Promise.all([ask(), ask()])).toEqual([1, 1]);
    vi.advanceTimersByTime(499);
    expect(await ask()).toBe(1);
    vi.advanceTimersByTime(1);
    expect(await ask()).toBe(2);
  });

  it("has its error told to each, and another key its own answer", async () => {
    await expect(fail()).rejects.toThrow("no");
    await expect(fail()).rejects.toThrow("no");
    expect(await inBurst("another", async () => "yes")).toBe("yes");
  });
});
