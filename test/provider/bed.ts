/** Check and diff as functions, on a host of their own: a folder with a kernel, a state directory that is not there yet. */

import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, expect, vi } from "vitest";
import { check, diff } from "../../provider/index.js";
import type { Values } from "../../provider/plan/fields.js";
import { bzImage, unpackedKernel } from "./preflight/kernel/images.js";

/** Options with which a kernel boots an NFS or a disk root by itself. */
const OPTIONS = (
  "BINFMT_ELF BINFMT_SCRIPT PRINTK SERIAL_8250_CONSOLE PCI ACPI ACPI_BUTTON INPUT_EVDEV NET INET VIRTIO_PCI " +
  "VIRTIO_NET VIRTIO_BLK EXT4_FS NFS_FS NFS_V3 ROOT_NFS IP_PNP IP_PNP_DHCP BLK_DEV_INITRD DEVTMPFS PROC_FS SYSFS"
).split(" ");

/** A small bzImage: a real header, its configuration inside, no code. */
export function kernelImage({ without = "", release = "6.1.0-test" } = {}): Buffer {
  const configuration = OPTIONS.filter((name) => name !== without).map((name) => `CONFIG_${name}=y\n`);
  return bzImage(release, gzipSync(unpackedKernel(release, configuration.join(""))));
}

export const sha256 = (content: Buffer | string) => createHash("sha256").update(content).digest("hex");

/** What there is while one test runs. */
export interface Bed {
  /** Absolute path of a folder of the test's own. */
  folder: string;
  /** Absolute path of a kernel in it. */
  kernel: string;
  /** What was printed. */
  lines: string[];
}

/** Makes a bed before each test of the file, and removes it afterwards. */
export function useBed(): Bed {
  const bed: Bed = { folder: "", kernel: "", lines: [] };
  beforeEach(async () => {
    bed.folder = await mkdtemp(join(tmpdir(), "microvm-check-"));
    vi.stubEnv("XDG_STATE_HOME", join(bed.folder, "state"));
    vi.stubEnv("XDG_RUNTIME_DIR", join(bed.folder, "run"));
    bed.kernel = join(bed.folder, "vmlinuz");
    await writeFile(bed.kernel, kernelImage());
    bed.lines = [];
    vi.spyOn(process.stdout, "write").mockImplementation((text) => {
      bed.lines.push(String(text).trimEnd());
      return true;
    });
  });
  afterEach(async () => {
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
    await rm(bed.folder, { recursive: true, force: true });
  });
  return bed;
}

export const owner = { organization: "organization", urn: "", program: "/srv/shop" };

let count = 0;

/** What program and SDK give for a VM with an NFS root on this host; each call another resource. */
export function newsOf({ kernel }: Bed, changes: Values = {}): Values {
  count += 1;
  return {
    kernel,
    useNfsRoot: true,
    nfsServer: "127.0.0.1",
    nfsPort: 11111,
    preflight: "off",
    owner: { ...owner, urn: `urn:pulumi:dev::shop::microvm:index:MicroVm::vm${count}` },
    __provider: 'exports.handler=()=>require("pulumi-microvm/provider")',
    ...changes,
  };
}

/** The checked inputs of inputs that are right. */
export async function checkedInputs(olds: Values, news: Values): Promise<Values> {
  const { inputs, failures } = await check(olds, news);
  expect(failures).toEqual([]);
  return inputs;
}

/** A VM that exists, on a host that is not this one: nothing is found out about it. */
export async function existing(news: Values): Promise<Values> {
  return { ...(await checkedInputs({}, news)), stateDirectory: "/nonexistent/state" };
}

/** Why inputs are refused. */
export async function reasons(olds: Values, news: Values): Promise<string[]> {
  return (await check(olds, news)).failures.map(({ reason }) => reason);
}

export const instance = "0123456789abcdef";

/** What the diff of a VM that exists says. */
export const diffOf = (olds: Values, news: Values) =>
  diff(`${String(olds["vmName"])}/${instance}`, olds, news);

/** The properties that make a diff a replace. */
export const replaces = async (olds: Values, news: Values) => (await diffOf(olds, news)).replaces;
