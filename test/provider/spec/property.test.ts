import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { qemuArguments } from "../../../provider/backends/qemu/arguments.js";
import { bootConfiguration, type BootConfiguration } from "../../../provider/boot/boot.js";
import { MicroVmError } from "../../../provider/errors.js";
import { vmPaths } from "../../../provider/host/paths.js";
import { check } from "../../../provider/index.js";
import { specOf } from "../../../provider/spec/check.js";
import { withoutSecrets } from "../../../provider/spec/context.js";
import { schemas } from "../../../provider/spec/schema.js";
import type { Spec } from "../../../provider/spec/spec.js";
import { kernelWords, nfsroot, type KernelWord } from "../boot/kernel-words.js";
import { anyInputs, rightInputs } from "./generated.js";
import { context, owner, type Inputs } from "./sample-inputs.js";

const STATE = "/home/me/.local/state/pulumi-microvm";

/** Whether what a failure begins with is an input that there is, or one that was given. */
function isNamed(input: string, inputs: Inputs): boolean {
  const name = input.startsWith('"') ? (JSON.parse(input) as string) : (input.split(".")[0] ?? "");
  return Object.hasOwn(schemas, name) || Object.hasOwn(inputs, name);
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

const wordText = ({ name, value }: KernelWord) => (value === undefined ? name : `${name}=${value}`);

/** The words that a spec means, without the root's. */
function meantWords(spec: Spec): { head: string[]; tail: string[] } {
  const guest = spec.ip.startsWith("10.") ? spec.ip : "10.0.2.15";
  return {
    head: ["console=ttyS0"],
    tail: [
      "gateway_ip=10.0.2.2/24",
      `guest_ip=${guest}/24`,
      `vm_name=${spec.vmName}`,
      ...(spec.entryPoint === undefined ? [] : [`entry_point=${spec.entryPoint}`]),
      ...spec.kernelArgs,
    ],
  };
}

function expectMeantWords(spec: Spec, cmdline: string): void {
  const words = kernelWords(cmdline);
  const { head, tail } = meantWords(spec);
  const root = words.slice(head.length, words.length - tail.length);
  expect(words.slice(0, head.length).map(wordText)).toEqual(head);
  expect(words.slice(words.length - tail.length).map(wordText)).toEqual(tail);
  if (!spec.useNfsRoot) {
    expect(root.map(wordText)).toEqual(spec.initramfs === undefined ? ["root=/dev/vda", "ro"] : []);
    return;
  }
  const guest = spec.ip.startsWith("10.") ? spec.ip : "10.0.2.15";
  const [device, place, ip, rw, ...more] = root;
  expect([device, rw, ...more]).toEqual([{ name: "root", value: "/dev/nfs" }, { name: "rw" }]);
  expect(ip).toEqual({
    name: "ip",
    value: spec.ip === "dhcp" ? "dhcp" : `${guest}::10.0.2.2:255.255.255.0:${spec.vmName}:eth0:off:10.0.2.3`,
  });
  expect(place?.name).toBe("nfsroot");
  const { server, path, options } = nfsroot(place?.value ?? "");
  expect({ server, path }).toEqual({ server: "192.0.2.7", path: spec.nfsPath });
  const mountPort = spec.nfsMountPort === "rpcbind" ? [] : [`mountport=${spec.nfsMountPort}`];
  const added = spec.nfsOptions === "" ? [] : spec.nfsOptions.split(",");
  expect(options).toEqual(["nfsvers=3", "tcp", "nolock", `port=${spec.nfsPort}`, ...mountPort, ...added]);
  const names = options.map((option) => option.split("=")[0]);
  for (const name of ["nfsvers", "tcp", "nolock", "port"]) {
    expect(names.filter((other) => other === name)).toHaveLength(1);
  }
  // The kernel gives the path to sprintf.
  expect(path).not.toContain("%");
}

/** Each of these words is ours alone: another would win in silence. */
const ONCE = "console root nfsroot ip nfsaddrs gateway_ip guest_ip vm_name entry_point rdinit".split(" ");

function expectSafe(boot: BootConfiguration): void {
  expect(boot.cmdline).toMatch(/^[\x20-\x7e]+$/);
  expect(Buffer.byteLength(boot.cmdline)).toBeLessThanOrEqual(2047);
  const names = kernelWords(boot.cmdline).map(({ name }) => name);
  for (const name of ONCE) expect(names.filter((other) => other === name).length).toBeLessThanOrEqual(1);
  expect(names).not.toContain("--");
  for (const file of [
    ...boot.disks,
    boot.kernel,
    ...(boot.initramfs === undefined ? [] : [boot.initramfs]),
  ]) {
    expect(file.path).toMatch(/^\/\P{Cc}*$/u);
  }
  for (const disk of boot.disks.slice(boot.root.type === "disk" ? 1 : 0)) {
    expect(disk.path).toMatch(
      /^\/home\/me\/\.local\/state\/pulumi-microvm\/[A-Za-z0-9-]{1,63}\/stateful\.img$/,
    );
  }
}

/** Values of an option of QEMU's: a comma in a value is doubled (qemu(1); get_opt_value() in util/qemu-option.c). */
function qemuOption(text: string): string[] {
  return text
    .replaceAll(",,", "\0")
    .split(",")
    .map((part) => part.replaceAll("\0", ","));
}

function expectQemu({ vmName, backend }: Spec, boot: BootConfiguration): void {
  const args = qemuArguments(boot, {
    vmName,
    instance: "0123456789abcdef",
    machine: backend.machine,
    accelerator: "tcg",
    sandbox: false,
    paths: { kernel: "/k", controlSocket: "/s", consoleLog: "/c" },
  });
  const after = (name: string) => args.flatMap((arg, index) => (args[index - 1] === name ? [arg] : []));
  expect(after("-append")).toEqual([boot.cmdline]);
  expect(after("-name")).toEqual([`guest=${vmName}`]);
  const disks = after("-blockdev").map(qemuOption);
  expect(disks).toHaveLength(boot.disks.length);
  for (const [index, disk] of boot.disks.entries()) {
    expect(disks[index]?.filter((value) => value.startsWith("file.filename="))).toEqual([
      `file.filename=${disk.path}`,
    ]);
    expect(disks[index]).toContain(`read-only=${disk.readonly === true ? "on" : "off"}`);
  }
  const network = after("-netdev").map(qemuOption)[0] ?? [];
  expect(network.filter((value) => value.startsWith("hostfwd=")).toSorted()).toEqual(
    boot.portForwards
      .map(
        ({ protocol, hostAddress, hostPort, guestPort }) =>
          `hostfwd=${protocol}:${hostAddress}:${hostPort}-${boot.link.guestAddress}:${guestPort}`,
      )
      .toSorted(),
  );
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
          expectMeantWords(result.spec, result.boot.cmdline);
          expectSafe(result.boot);
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
