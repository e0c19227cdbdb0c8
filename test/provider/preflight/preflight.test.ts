import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { check } from "../../../provider/index.js";
import type { Values } from "../../../provider/plan/fields.js";
import { forgetProbes } from "../../../provider/preflight/nfs/index.js";
import { UNKNOWN } from "../../../provider/spec/validate.js";
import { freePort } from "../../lab/nfs.js";
import { bzImage, unpackedKernel, vmlinux } from "./kernel/images.js";
import { deniedAnswers, recorded } from "./nfs/answers.js";
import { reply } from "./nfs/peer.js";
import { usePeers } from "./nfs/peers.js";

/** What a kernel needs to boot an NFS root by itself, on q35. */
const OPTIONS = (
  "BINFMT_ELF PRINTK SERIAL_8250_CONSOLE PCI ACPI_BUTTON INPUT_EVDEV NET INET VIRTIO_PCI VIRTIO_NET VIRTIO_BLK EXT4_FS " +
  "NFS_FS NFS_V3 ROOT_NFS IP_PNP BLK_DEV_INITRD"
).split(" ");
const configuration = (without = "") =>
  OPTIONS.filter((name) => name !== without)
    .map((name) => `CONFIG_${name}=y\n`)
    .join("");

let folder: string;
let kernel: string;
let lines: string[];
const { listen, rightServer } = usePeers();

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "microvm-preflight-"));
  vi.stubEnv("XDG_STATE_HOME", join(folder, "state"));
  vi.stubEnv("XDG_RUNTIME_DIR", join(folder, "run"));
  kernel = join(folder, "vmlinuz");
  await writeFile(kernel, bzImage("6.1.0-test", gzipSync(unpackedKernel("6.1.0-test", configuration()))));
  lines = [];
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    lines.push(String(text).trimEnd());
    return true;
  });
});

afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  forgetProbes();
  await rm(folder, { recursive: true, force: true });
});

let count = 0;
/** What program and SDK give for a VM whose root is on a port of this host; each call another resource. */
function newsOf(nfsPort: unknown, changes: Values = {}): Values {
  count += 1;
  return {
    kernel,
    useNfsRoot: true,
    nfsServer: "127.0.0.1",
    nfsPort,
    nfsPath: "/srv",
    owner: {
      organization: "organization",
      urn: `urn:pulumi:dev::shop::microvm:index:MicroVm::vm${count}`,
      program: "/srv/shop",
    },
    ...changes,
  };
}

const reasons = async (news: Values, olds: Values = {}) =>
  (await check(olds, news)).failures.map(({ reason }) => reason);

/** A VM that exists, in a state directory that is not on this host: nothing is found out about it. */
async function existing(news: Values): Promise<Values> {
  const { inputs } = await check({}, { ...news, preflight: "off" });
  return { ...inputs, preflight: news["preflight"] ?? "error", stateDirectory: "/nonexistent/state" };
}

const warnings = () => lines.filter((line) => line.includes(": warning: "));
const unchecked = () => lines.filter((line) => line.includes(": not checked in this preview: "));

describe("preflight of a new VM", () => {
  it("finds nothing wrong with what is right", async () => {
    const { port } = await rightServer();
    expect(await reasons(newsOf(port))).toEqual([]);
    expect(warnings()).toEqual([]);
    expect(unchecked()).toEqual([]);
  });

  it("names the input, the finding, the remedy and the code of a dead server", async () => {
    const port = await freePort();
    expect(await reasons(newsOf(port))).toEqual([
      `nfsPort: nothing listens at 127.0.0.1 port ${port} (nfsd) (connection refused). Start the NFS server, or give the TCP port that it listens on [nfs-unreachable]`,
    ]);
  });

  it("names the exports that there are for one that there is not", async () => {
    const { port } = await listen({
      onCall: (call) => {
        const answers = call.program === 100_003 ? undefined : deniedAnswers[call.index];
        call.socket.write(reply(call, answers === undefined ? recorded(call) : Buffer.from(answers, "hex")));
      },
    });
    expect(await reasons(newsOf(port, { nfsPath: "/wrong" }))).toEqual([
      'nfsPath: 127.0.0.1 does not export "/wrong", or not to this host (MNT3ERR_ACCES). It exports "/srv": give one of these, or add the folder to its exports [nfs-unreachable]',
    ]);
  });

  it("looks for the last init= of the command line, as the kernel does", async () => {
    const { port, calls } = await rightServer();
    const kernelArgs = ["init=/first", "panic=-1", "init=/sbin/init"];
    expect(await reasons(newsOf(port, { kernelArgs }))).toEqual([]);
    expect(calls.some(({ message }) => message.includes("first"))).toBe(false);
  });

  it("refuses a kernel for another processor than the back end's guests have", async () => {
    await writeFile(kernel, vmlinux(unpackedKernel("6.1.0-arm", configuration()), 183));
    const { port } = await rightServer();
    expect(await reasons(newsOf(port))).toEqual([
      "kernel: is a kernel for aarch64, and the qemu back end runs x86_64 guests. Give one for x86_64 [kernel-unusable]",
    ]);
  });

  it("refuses a kernel that lacks what no initramfs can bring, by the option's name", async () => {
    const lacking = unpackedKernel("6.1.0-test", configuration("SERIAL_8250_CONSOLE"));
    await writeFile(kernel, bzImage("6.1.0-test", gzipSync(lacking)));
    const { port } = await rightServer();
    expect(await reasons(newsOf(port))).toEqual([
      expect.stringMatching(
        /^kernel: cannot boot this root: CONFIG_SERIAL_8250_CONSOLE is not set: .*\. Use a kernel that has them \[kernel-unusable\]$/,
      ),
    ]);
  });

  it("refuses a hypervisor that is not there, and a guest larger than the host, each by its input", async () => {
    const { port } = await rightServer();
    const backend = { type: "qemu", binary: join(folder, "qemu") };
    expect(await reasons(newsOf(port, { backend, memoryMiB: 16 * 1024 * 1024 }))).toEqual([
      expect.stringMatching(/^backend\.binary: .*qemu.*\[host-unusable\]$/),
      expect.stringMatching(/^memoryMiB: expected at most the \d+ MiB that this host .*\[host-unusable\]$/),
    ]);
  });

  it("only warns where that is asked for, and asks nothing where it is off", async () => {
    const port = await freePort();
    expect(await reasons(newsOf(port, { vmName: "warned", preflight: "warn" }))).toEqual([]);
    expect(warnings()).toEqual([expect.stringMatching(/^warned: warning: nfsPort: nothing listens at /)]);
    const peer = await rightServer();
    expect(await reasons(newsOf(peer.port, { preflight: "off" }))).toEqual([]);
    expect(peer.sockets).toHaveLength(0);
  });

  it("only warns of init where an initramfs of the person's own starts it", async () => {
    const { port } = await rightServer();
    const initramfs = join(folder, "initramfs");
    await writeFile(initramfs, "");
    const readiness = { console: "login:" };
    const args = { kernelArgs: ["init=/sbin/none"], initramfs, readiness };
    const isThere = { ...args, initramfs: undefined };
    const peer = await listen({
      onCall: (call) => {
        const isLookup = call.program === 100_003 && call.procedure === 3;
        // NFS3ERR_NOENT, without attributes of the folder.
        const missing = `00000001${"00000000".repeat(4)}0000000200000000`;
        call.socket.write(reply(call, isLookup ? missing : recorded(call)));
      },
    });
    expect(await reasons(newsOf(peer.port, isThere))).toEqual([
      expect.stringMatching(/^kernelArgs: .* holds no init program: \/sbin\/none .*\[root-unusable\]$/),
    ]);
    expect(await reasons(newsOf(peer.port, args))).toEqual([]);
    expect(warnings()).toEqual([expect.stringContaining("holds no init program: /sbin/none")]);
    expect(await reasons(newsOf(port, { initramfs, readiness }))).toEqual([]);
  });

  it("boots nothing for a VM that is to be stopped, and so fails nothing", async () => {
    const port = await freePort();
    expect(await reasons(newsOf(port, { powerState: "stopped" }))).toEqual([]);
    expect(warnings()).toHaveLength(1);
  });
});

describe("preflight of a VM that exists", () => {
  it("warns of its dead server, so that the rest of the stack goes on", async () => {
    const news = newsOf(await freePort());
    const olds = await existing(news);
    expect(await reasons(news, olds)).toEqual([]);
    expect(warnings()).toEqual([expect.stringContaining(": warning: nfsPort: nothing listens at ")]);
    expect(await reasons({ ...news, shutdownTimeoutSeconds: 5 }, olds)).toEqual([]);
  });

  it("fails when it is to be replaced", async () => {
    const news = newsOf(await freePort());
    const olds = await existing(news);
    expect(await reasons({ ...news, vcpus: 2 }, olds)).toEqual([expect.stringMatching(/^nfsPort: nothing/)]);
  });

  it("only warns where a replace depends on what is not known yet", async () => {
    const news = newsOf(await freePort());
    const olds = await existing(news);
    expect(await reasons({ ...news, vcpus: UNKNOWN }, olds)).toEqual([]);
    expect(warnings()).toHaveLength(1);
  });
});

describe("preflight of what a preview does not know yet", () => {
  it("leaves out what depends on it, and says what", async () => {
    const peer = await rightServer();
    expect(await reasons(newsOf(UNKNOWN, { vmName: "later" }))).toEqual([]);
    expect(await reasons(newsOf(peer.port, { vmName: "more", kernel: UNKNOWN, backend: UNKNOWN }))).toEqual(
      [],
    );
    expect(unchecked()).toEqual([
      "later: not checked in this preview: the NFS export (nfsPort, nfsMountPort are not known yet)",
      "more: not checked in this preview: what the kernel can boot (kernel, backend are not known yet); the NFS export (backend is not known yet); this host's hypervisor (backend is not known yet)",
    ]);
  });

  it("checks all the same what does not", async () => {
    const port = await freePort();
    for (const changes of [
      { portForwards: [{ hostPort: UNKNOWN, guestPort: 80 }] },
      { kernel: UNKNOWN },
      { kernelArgs: [UNKNOWN] },
      { vcpus: UNKNOWN },
      { vmName: UNKNOWN },
    ]) {
      expect(await reasons(newsOf(port, changes))).toEqual([expect.stringMatching(/^nfsPort: nothing/)]);
    }
  });

  it("fails nothing while the mode, or whether it boots at all, is not known", async () => {
    const port = await freePort();
    expect(await reasons(newsOf(port, { preflight: UNKNOWN }))).toEqual([]);
    expect(await reasons(newsOf(port, { powerState: UNKNOWN }))).toEqual([]);
    expect(warnings()).toHaveLength(2);
  });

  it("looks for no init while kernelArgs may name another", async () => {
    const { port } = await rightServer();
    expect(await reasons(newsOf(port, { vmName: "args", kernelArgs: UNKNOWN, nfsPath: "/srv" }))).toEqual([]);
    expect(unchecked()).toEqual([
      "args: not checked in this preview: the init program in the export (kernelArgs is not known yet)",
    ]);
  });

  it("names a VM whose name is not known by its resource", async () => {
    const port = await freePort();
    await check({}, newsOf(port, { vmName: UNKNOWN, preflight: "warn" }));
    expect(warnings()).toEqual([expect.stringMatching(/^vm\d+: warning: /)]);
    expect(lines.join("\n")).not.toContain(UNKNOWN);
  });

  it("shows the facts that depend on it as unknown, not as gone", async () => {
    const { port } = await rightServer();
    const news = newsOf(port);
    const olds = await existing(news);
    const { inputs } = await check(olds, { ...news, kernel: UNKNOWN, nfsServer: UNKNOWN });
    expect(inputs).toMatchObject({
      kernelSha256: UNKNOWN,
      initramfsSha256: UNKNOWN,
      nfsServerAddress: UNKNOWN,
      cmdline: UNKNOWN,
    });
    const made = { initramfsSha256: "1".repeat(64), generatedInitramfs: "/state/.cache/initramfs" };
    const grown = await check({ ...olds, ...made }, { ...news, statefulDiskMiB: UNKNOWN });
    expect(grown.inputs).toMatchObject(made);
  });
});

describe("preflight of 300 VMs", () => {
  it("asks a server that never answers once, whatever the exports", { timeout: 30_000 }, async () => {
    const peer = await listen({});
    const checks = Array.from({ length: 300 }, (_, index) =>
      reasons(newsOf(peer.port, { nfsPath: `/srv/${index % 3}` })),
    );
    const found = await Promise.all(checks);
    expect(found.every(([reason]) => reason?.includes("did not answer NULL within 2 s"))).toBe(true);
    expect(peer.sockets).toHaveLength(1);
  });

  it("mounts an export once for all of them, one after the other as the engine does", async () => {
    const peer = await rightServer();
    for (let index = 0; index < 300; index += 1) expect(await reasons(newsOf(peer.port))).toEqual([]);
    // nfsd and mountd, each once.
    expect(peer.sockets).toHaveLength(2);
  });

  it("asks two servers side by side", { timeout: 30_000 }, async () => {
    const [one, other] = [await listen({}), await listen({})];
    const checks = [one, other].map((peer) => reasons(newsOf(peer.port)));
    await expect.poll(() => [one, other].map(({ calls }) => calls.length)).toEqual([1, 1]);
    expect(await Promise.all(checks)).toHaveLength(2);
  });
});
