import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { isIPv4 } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { errorKinds } from "../../provider/errors.js";
import { defaultStateDirectory } from "../../provider/host/state-directory.js";
import { check, diff } from "../../provider/index.js";
import type { Values } from "../../provider/plan/fields.js";
import { bootOf, derivedNames, type CheckedInputs } from "../../provider/spec/checked.js";
import { schemas, type InputName } from "../../provider/spec/schema.js";
import { holdsUnknown, UNKNOWN } from "../../provider/spec/validate.js";
import { bzImage, unpackedKernel } from "./preflight/kernel/images.js";
import { anyInputs, rightInputs } from "./spec/generated.js";
import { expectMeantWords, expectQemu, expectSafe } from "./spec/meant.js";
import type { Inputs } from "./spec/sample-inputs.js";

/** `npm test` runs a share of the 100,000 that `npm run test:scale` runs. */
const RUNS = Number(process.env["MICROVM_SCALE_RUNS"] ?? "10000");
/** A run takes a few milliseconds, and a busy machine several times as long. */
const TIMEOUT_MS = 60_000 + RUNS * 30;

let folder: string;
let files: { readonly kernel: string; readonly initramfs: string; readonly rootfs: string };
let lines: string[];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "microvm-scale-"));
  vi.stubEnv("XDG_STATE_HOME", join(folder, "state"));
  vi.stubEnv("XDG_RUNTIME_DIR", join(folder, "run"));
  files = {
    kernel: join(folder, "vmlinuz"),
    initramfs: join(folder, "initramfs"),
    rootfs: join(folder, "rootfs.img"),
  };
  const options =
    "BINFMT_ELF PRINTK SERIAL_8250_CONSOLE PCI ACPI ACPI_BUTTON INPUT_EVDEV NET INET VIRTIO_PCI VIRTIO_MMIO VIRTIO_NET " +
    "VIRTIO_BLK EXT4_FS NFS_FS NFS_V3 ROOT_NFS IP_PNP IP_PNP_DHCP BLK_DEV_INITRD";
  const configuration = options.replaceAll(/\w+/g, "CONFIG_$&=y\n");
  await writeFile(
    files.kernel,
    bzImage("6.1.0-scale", gzipSync(unpackedKernel("6.1.0-scale", configuration))),
  );
  await writeFile(files.initramfs, "initramfs");
  await writeFile(files.rootfs, "rootfs");
  lines = [];
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    lines.push(String(text));
    return true;
  });
});

afterAll(async () => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

/** One program before and after an edit, as the SDK hands its inputs on. */
interface Edited {
  readonly edit: { readonly before: Inputs; readonly after: Inputs };
  /** Whether the files that the inputs name are there. */
  readonly hasFiles: boolean;
  readonly secret: readonly string[];
  readonly createFirst: boolean;
  /** An input that a preview does not know yet. */
  readonly later?: InputName;
  readonly resource: number;
}

const rarely = <T>(arbitrary: fc.Arbitrary<T>, otherwise: T) =>
  fc.oneof({ weight: 9, arbitrary: fc.constant(otherwise) }, { weight: 1, arbitrary });

const anyProgram = fc.oneof({ weight: 2, arbitrary: rightInputs }, { weight: 3, arbitrary: anyInputs });

/** A program and what it is edited to: most edits change a few inputs. */
const edits = fc
  .tuple(anyProgram, anyProgram, fc.subarray(Object.keys(schemas), { maxLength: 4 }), fc.nat(3))
  .map(([before, other, names, chance]) => ({
    before,
    after: chance === 0 ? other : { ...before, ...pick(other, names) },
  }));

function pick(from: Inputs, names: readonly string[]): Inputs {
  return Object.fromEntries(
    names.filter((name) => Object.hasOwn(from, name)).map((name) => [name, from[name]]),
  );
}

const programs: fc.Arbitrary<Edited> = fc.record({
  edit: edits,
  hasFiles: fc.oneof(
    { weight: 9, arbitrary: fc.constant(true) },
    { weight: 1, arbitrary: fc.constant(false) },
  ),
  secret: rarely(fc.subarray(Object.keys(schemas)), []),
  createFirst: rarely(fc.constant(true), false),
  later: rarely(
    fc.constantFrom<(InputName | undefined)[]>(...(Object.keys(schemas) as InputName[])),
    undefined,
  ),
  resource: fc.nat(999),
});

const isRight = (name: InputName, value: unknown) => schemas[name].safeParse(value).success;

/** Inputs that leave this host and its clock alone: right paths lead to files, right names to this host, nothing is probed. */
function newsOf(inputs: Inputs, program: Edited): Values {
  const news: Record<string, unknown> = { ...inputs };
  for (const [name, path] of Object.entries(files) as [InputName, string][]) {
    if (program.hasFiles && isRight(name, news[name])) news[name] = path;
  }
  if (program.later !== undefined) news[program.later] = UNKNOWN;
  const { nfsServer, preflight } = news;
  if (typeof nfsServer === "string" && isRight("nfsServer", nfsServer) && !isIPv4(nfsServer)) {
    news["nfsServer"] = "localhost";
  }
  // An initramfs of one's own asks for a console line that proves the root; mostly it is given.
  if (news["initramfs"] === files.initramfs && news["readiness"] === undefined && program.resource % 5 > 0) {
    news["readiness"] = { console: "login:" };
  }
  const isProbed = preflight === undefined || preflight === null || holdsUnknown(preflight);
  if (isProbed || isRight("preflight", preflight)) news["preflight"] = "off";
  return {
    ...news,
    owner: {
      organization: "organization",
      urn: `urn:pulumi:dev::shop::microvm:index:MicroVm::vm${program.resource}`,
      program: "/srv/shop",
    },
    ...(program.createFirst ? { createFirst: true } : {}),
    ...(program.secret.length > 0 ? { secretInputs: program.secret } : {}),
    __provider: 'exports.handler=()=>require("pulumi-microvm/provider")',
  };
}

const counts = { programs: 0, checks: 0, refused: 0, unknown: 0, accepted: 0, diffs: 0 };
const refusals = new Map<string, number>();

/** A frame on a line of its own, or what the border makes of an error that nobody expected. */
const STACK_TRACE = /\n\s+at |\[internal-error\]/;
const CODE = new RegExp(`\\[(?:${Object.keys(errorKinds).join("|")})\\]`);

/** The input that a reason begins with: a public one, or one that was given. An odd name is shown in quotes. */
function inputOf(reason: string, news: Values): string | undefined {
  const name = /^[\w-]+/.exec(reason)?.[0];
  if (name === undefined) return reason.startsWith('"') ? "odd names" : undefined;
  return Object.hasOwn(schemas, name) || Object.hasOwn(news, name) ? name : undefined;
}

/** The checked inputs of news that are accepted. Those that are refused are so by name, in words. */
async function checked(olds: Values, news: Values): Promise<Values | undefined> {
  counts.checks += 1;
  const { inputs, failures } = await check(olds, news);
  if (failures.length === 0) return inputs;
  counts.refused += 1;
  const secret = new Set(news["secretInputs"] as readonly string[] | undefined);
  for (const { property, reason } of failures) {
    const name = inputOf(reason, news);
    expect(name, reason).toBeDefined();
    expect(reason).toMatch(CODE);
    expect(reason).not.toMatch(STACK_TRACE);
    expect(reason.length).toBeLessThan(1000);
    expect(property === "" ? secret.has(reason.split(/[.:]/)[0] ?? "") : true, reason).toBe(true);
    refusals.set(name ?? "", (refusals.get(name ?? "") ?? 0) + 1);
  }
  return undefined;
}

/** What is accepted boots with exactly what was meant. */
function expectMeant(inputs: Values): void {
  if (inputs["cmdline"] === UNKNOWN || Object.values(inputs).some(holdsUnknown)) {
    counts.unknown += 1;
    return;
  }
  counts.accepted += 1;
  const spec = inputs as unknown as CheckedInputs;
  const boot = bootOf(spec);
  expect(boot.cmdline).toBe(spec.cmdline);
  const address = spec.nfsServerAddress ?? "";
  const isHere = /^127\.|^0\.0\.0\.0$/.test(address);
  expectMeantWords(spec, spec.cmdline, isHere ? "10.0.2.2" : address);
  expectSafe(boot, defaultStateDirectory());
  expectQemu(spec, boot);
}

/** What is refused by its olds only: the rest of an edit is looked at all the same. */
async function run(program: Edited): Promise<void> {
  counts.programs += 1;
  const first = await checked({}, newsOf(program.edit.before, program));
  if (first !== undefined) expectMeant(first);
  const isKnown = first !== undefined && !Object.values(first).some(holdsUnknown);
  const olds = isKnown ? first : {};
  const news = newsOf(program.edit.after, program);
  const fedBack = isKnown ? Object.fromEntries(derivedNames.map((name) => [name, olds[name]])) : {};
  const second = await checked(olds, program.resource % 7 === 0 ? { ...news, ...fedBack } : news);
  if (second === undefined) return;
  if (!isKnown) expectMeant(second);
  if (!isKnown) return;
  counts.diffs += 1;
  const result = await diff(`${String(olds["vmName"])}/0123456789abcdef`, olds, second);
  expect(typeof result.changes).toBe("boolean");
  expect(result.replaces.length === 0 || result.changes).toBe(true);
}

describe(`check and diff of ${RUNS} generated programs`, () => {
  it("never crash, refuse by name, and boot only what was meant", { timeout: TIMEOUT_MS }, async () => {
    await fc.assert(
      fc.asyncProperty(programs, async (program) => {
        lines.length = 0;
        await run(program);
        expect(lines.join("")).not.toMatch(STACK_TRACE);
      }),
      { numRuns: RUNS, endOnFailure: RUNS > 20_000 },
    );
    const byName = [...refusals].toSorted(([, a], [, b]) => b - a).map(([name, count]) => `${name} ${count}`);
    if (RUNS > 20_000)
      console.error(`${JSON.stringify(counts)}\nrefusals: ${byName.slice(0, 40).join(", ")}`);
    // Of programs that are mostly wrong, enough are right to say something.
    expect(counts.accepted).toBeGreaterThan(RUNS / 10);
    expect(counts.diffs).toBeGreaterThan(RUNS / 50);
    for (const name of Object.keys(schemas)) expect(refusals.get(name) ?? 0, name).toBeGreaterThan(0);
  });
});
