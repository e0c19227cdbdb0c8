import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { bootConfiguration, type BootConfiguration } from "../../../provider/boot/boot.js";
import { MicroVmError } from "../../../provider/errors.js";
import { vmPaths } from "../../../provider/host/paths.js";
import { check } from "../../../provider/index.js";
import { specOf } from "../../../provider/spec/check.js";
import { withoutSecrets } from "../../../provider/spec/context.js";
import { schemas } from "../../../provider/spec/schema.js";
import type { Spec } from "../../../provider/spec/spec.js";
import { anyInputs, rightInputs } from "./generated.js";
import { expectMeantWords, expectQemu, expectSafe } from "./meant.js";
import { context, owner, type Inputs } from "./sample-inputs.js";

const STATE = "/home/me/.local/state/pulumi-microvm";

/** Whether what a failure begins with is an input that there is, or one that was given. */
function isNamed(input: string, inputs: Inputs): boolean {
  const name = input.startsWith('"') ? (JSON.parse(input) as string) : (input.split(".")[0] ?? "");
  if (Object.hasOwn(schemas, name) || Object.hasOwn(inputs, name)) return true;
  // A name that is too long to show is cut.
  const shownPart = name.replace(/…$/, "");
  return shownPart !== name && Object.keys(inputs).some((given) => given.startsWith(shownPart));
}

/** What is booted from inputs; undefined when they are refused, each time by a name that a person can find. */
async function accepted(inputs: Inputs): Promise<{ spec: Spec; boot: BootConfiguration } | undefined> {
  const { spec, failures, unknown } = await specOf(inputs, context());
  for (const { input, text } of failures) {
    expect(isNamed(input, inputs)).toBe(true);
    expect(text).not.toBe("");
  }
  if (spec === undefined) {
    expect(failures.length + unknown.size).toBeGreaterThan(0);
    return undefined;
  }
  try {
    const boot = bootConfiguration(spec, {
      kernel: { path: spec.kernel, sha256: "a".repeat(64) },
      initramfs:
        spec.initramfs === undefined
          ? undefined
          : { path: spec.initramfs, sha256: "b".repeat(64), generated: false },
      nfsServerAddress: spec.useNfsRoot ? "192.0.2.7" : undefined,
      statefulDisk: vmPaths(STATE, spec.vmName).statefulDisk,
    });
    return { spec, boot };
  } catch (error) {
    // A limit of the kernel.
    expect(error).toBeInstanceOf(MicroVmError);
    expect(Object.keys(schemas)).toContain((error as MicroVmError).input);
    return undefined;
  }
}

describe("whatever the inputs are", () => {
  it(
    "what is accepted boots with exactly the words, disks and forwards that were meant",
    { timeout: 60_000 },
    async () => {
      let count = 0;
      await fc.assert(
        fc.asyncProperty(anyInputs, async (inputs) => {
          const result = await accepted(inputs);
          if (result === undefined) return;
          count += 1;
          expectMeantWords(result.spec, result.boot.cmdline, "192.0.2.7");
          expectSafe(result.boot, STATE);
          expectQemu(result.spec, result.boot);
        }),
        { numRuns: 2000 },
      );
      // Of inputs that are mostly wrong, enough are right to say something.
      expect(count).toBeGreaterThan(200);
    },
  );

  it("most of the right ones are accepted", { timeout: 60_000 }, async () => {
    const results = await Promise.all(fc.sample(rightInputs, 200).map(accepted));
    expect(results.filter((result) => result !== undefined).length).toBeGreaterThan(100);
  });

  it("what is a secret never shows", { timeout: 60_000 }, async () => {
    const MARK = "SECRET-8417";
    await fc.assert(
      fc.asyncProperty(
        rightInputs,
        fc.constantFrom(...Object.keys(schemas), "nfsSever"),
        fc.constantFrom(MARK, `/${MARK}`, `${MARK} x`, `${MARK}=1`, [MARK], [`${MARK}\n`], { [MARK]: MARK }, [
          { hostPort: MARK, guestPort: 1 },
        ]),
        async (inputs, name, value) => {
          const secret = { ...inputs, [name]: value };
          const { failures } = await specOf(secret, context({ secretInputs: new Set([name]) }));
          // The name of a field is no secret, its value is.
          const texts = failures.map(({ text }) => text.replace(/the unknown fields? .*/, ""));
          const shown = texts.map((text) => withoutSecrets(text, secret, new Set([name])));
          // What is wrong with a file names its path: check takes it out.
          expect((name === "configFile" ? shown : texts).join("\n")).not.toContain(MARK);
        },
      ),
      { numRuns: 1000 },
    );
  });
});

describe("check, whatever the inputs are", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "microvm-property-"));
    vi.stubEnv("XDG_STATE_HOME", join(folder, "state"));
    vi.stubEnv("XDG_RUNTIME_DIR", join(folder, "run"));
    vi.spyOn(process.stdout, "write").mockReturnValue(true);
  });
  afterAll(async () => {
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
    await rm(folder, { recursive: true, force: true });
  });

  it("never throws, and every failure names an input", { timeout: 60_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(anyInputs, async (inputs) => {
        // Files that are not there, and no name that would be looked up elsewhere.
        const server = inputs["nfsServer"];
        const isName = typeof server === "string" && /[a-z]/i.test(server);
        const news = {
          ...inputs,
          kernel: join(folder, "vmlinuz"),
          ...(isName ? { nfsServer: "localhost" } : {}),
          owner,
        };
        const { failures } = await check({}, news);
        expect(failures.length).toBeGreaterThan(0);
        for (const { reason } of failures) {
          const input = /^("(?:[^"\\]|\\.)*"|[^:]+): /.exec(reason)?.[1] ?? "";
          expect(isNamed(input, news)).toBe(true);
          expect(reason).toMatch(/^\P{Cc}+$/u);
        }
      }),
      { numRuns: 500 },
    );
  });
});
