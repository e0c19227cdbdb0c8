import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findKvm } from "../../provider/preflight/host.js";
import { type Bed, makeBed, whyNoBed } from "../lab/bed.js";
import { Stack, whyNoEngine } from "../lab/engine.js";
import { freePort, type NfsServer, startNfsServer } from "../lab/nfs.js";
import { bzImage, unpackedKernel } from "../provider/preflight/kernel/images.js";
import { elfFile } from "../provider/preflight/nfs/elf.js";

const reason = whyNoBed() ?? whyNoEngine();
const suffix = reason === undefined ? "" : ` (${reason})`;
const AARCH64 = 183;

/** A MicroVm of the program: its name, its inputs, and what a preview must say of it. */
interface Case {
  readonly name: string;
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly says: RegExp;
}

describe.skipIf(reason !== undefined)(`preflight in a preview of the real engine${suffix}`, () => {
  let folder: string;
  let bed: Bed;
  let other: NfsServer;
  let stack: Stack;
  let cases: readonly Case[];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "lab-preflight-"));
    bed = await makeBed();
    const [empty, foreign] = [join(folder, "empty"), join(folder, "foreign")];
    await mkdir(empty);
    await mkdir(join(foreign, "sbin"), { recursive: true });
    await writeFile(join(foreign, "sbin/init"), elfFile({ machine: AARCH64 }), { mode: 0o755 });
    other = await startNfsServer({ exports: [{ path: empty }, { path: foreign }] });
    const lacking = join(folder, "vmlinuz");
    const configuration = "CONFIG_BINFMT_ELF=y\nCONFIG_PRINTK=y\nCONFIG_PCI=y\n";
    await writeFile(lacking, bzImage("6.1.0-lab", gzipSync(unpackedKernel("6.1.0-lab", configuration))));
    const elsewhere = { nfsPort: other.nfsPort, nfsMountPort: other.mountPort };
    const dead = await freePort();
    const kvm = await findKvm();
    cases = [
      {
        name: "dead",
        inputs: { nfsPort: dead, nfsMountPort: dead },
        says: text(
          `nfsPort: nothing listens at 127.0.0.1 port ${dead} (nfsd) (connection refused). Start the NFS server, or give the TCP port that it listens on`,
        ),
      },
      {
        name: "wrong-export",
        inputs: { ...elsewhere, nfsPath: "/srv/other" },
        says: new RegExp(
          `nfsPath: 127\\.0\\.0\\.1 does not export "/srv/other"[^.]*\\. It exports "${empty}", "${foreign}": give one of these, or add`,
        ),
      },
      {
        name: "no-init",
        inputs: { ...elsewhere, nfsPath: empty },
        says: text(
          `nfsPath: 127.0.0.1:${empty} holds no init program: /sbin/init, /etc/init, /bin/init, /bin/sh not found`,
        ),
      },
      {
        name: "no-asked-init",
        inputs: { kernelArgs: ["init=/bin/sh", "init=/opt/agent"] },
        says: text(
          `kernelArgs: 127.0.0.1:${bed.directory} holds no init program: /opt/agent not found (/opt is missing). Correct init=`,
        ),
      },
      {
        name: "foreign",
        inputs: { ...elsewhere, nfsPath: foreign },
        says: text(
          `nfsPath: /sbin/init in 127.0.0.1:${foreign} is a program for aarch64, and the guest is x86_64. Export a root file system made for x86_64`,
        ),
      },
      {
        name: "lacking",
        inputs: { kernel: lacking },
        says: /kernel: cannot boot this root: CONFIG_SERIAL_8250_CONSOLE is not set: .* Use a kernel that has them/,
      },
      {
        name: "no-qemu",
        inputs: { backend: { type: "qemu", binary: "/opt/none/qemu" } },
        says: text(
          'backend.binary: expected a program that can be run, found "/opt/none/qemu" (string). Correct the path, or leave it out to use qemu-system-x86_64',
        ),
      },
      {
        name: "too-large",
        inputs: { memoryMiB: 16 * 1024 * 1024 },
        says: /memoryMiB: expected at most the \d+ MiB that this host has, swap included, got 16777216\. Give/,
      },
      ...(kvm.usable
        ? [] // where KVM can run guests, nothing is wrong with asking for it
        : [
            {
              name: "no-kvm",
              inputs: { backend: { type: "qemu", accelerator: "kvm" } },
              says: text(`backend.accelerator: KVM cannot run a guest on this host: ${kvm.why}. Use "auto"`),
            },
          ]),
    ];
    const program = [
      'const { MicroVm } = require("pulumi-microvm");',
      'const { Config } = require("@pulumi/pulumi");',
      'const only = new Config().get("only");',
      `const bed = ${JSON.stringify(bed.inputs)};`,
      `const cases = ${JSON.stringify(cases.map(({ name, inputs }) => [name, inputs]))};`,
      "for (const [name, inputs] of cases) {",
      "  if (only === undefined || only === name) new MicroVm(name, { ...bed, vmName: name, ...inputs });",
      "}",
      'if (only === "later") {',
      '  const first = new MicroVm("first", bed);',
      '  new MicroVm("later", { ...bed, vmName: "later", nfsServer: first.guestIp });',
      "}",
    ].join("\n");
    stack = await Stack.create({ program });
  });

  afterAll(async () => {
    await stack?.dispose();
    await other?.stop();
    await bed?.close();
    await rm(folder, { recursive: true, force: true });
  });

  it("warns of everything in one preview where that is asked for", async () => {
    await stack.setConfig("microvm:preflight", "warn");
    const { exitCode, output } = await stack.preview();
    expect(exitCode, output).toBe(0);
    expect(output).toContain("dead: kernel: boots with an initramfs made from its modules, since CONFIG_");
    for (const { name, says } of cases) {
      const lines = output.split("\n").filter((line) => line.includes(`${name}: warning: `));
      expect(lines, name).toHaveLength(1);
      expect(lines[0]).toMatch(says);
    }
  });

  it("fails with one error for each kind, which names input, finding, remedy and code", async () => {
    await stack.mustRun("config", "rm", "microvm:preflight");
    // The engine ends at the first error, so each has a preview of its own.
    for (const { name, says } of cases) {
      await stack.setConfig("only", name);
      const { exitCode, output } = await stack.preview();
      expect(exitCode).not.toBe(0);
      const lines = output.split("\n").filter((line) => line.includes("has a problem:"));
      expect(lines, `${name}\n${output}`).toHaveLength(1);
      expect(lines[0]).toMatch(says);
      expect(lines[0]).toMatch(/ \[(?:nfs|root|kernel|host)-un\w+\]$/);
      expect(output).not.toMatch(/^ +at .*:\d+:\d+\)?$/m);
    }
    expect(await stack.leftovers()).toEqual([]);
  }, 300_000);

  it("says what it did not check, since an input is not known yet", async () => {
    await stack.setConfig("only", "later");
    const { exitCode, output } = await stack.preview();
    expect(exitCode, output).toBe(0);
    expect(output).toContain(
      "later: not checked in this preview: the NFS export (nfsServer is not known yet)",
    );
    expect(output).not.toMatch(/^later: .*04da6b54/m);
  });

  it("asks nothing of anyone where it is off", async () => {
    await stack.setConfig("only", "dead");
    await stack.setConfig("microvm:preflight", "off");
    const { exitCode, output } = await stack.preview();
    expect(exitCode, output).toBe(0);
    expect(output).not.toContain("warning:");
  });
});

/** These very words. */
function text(words: string): RegExp {
  return new RegExp(words.replaceAll(/[.*+?^${}()|[\]\\/]/g, String.raw`\$&`));
}
