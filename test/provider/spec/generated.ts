/** Inputs that fast-check makes: right ones, right ones with something put in their place, and anything at all. */

import * as fc from "fast-check";
import { schemas, type InputName } from "../../../provider/spec/schema.js";
import type { Inputs } from "./sample-inputs.js";

const inputNames = Object.keys(schemas) as InputName[];

const characters = (set: string) => fc.constantFrom(...set.split(""));
const LABEL = "abcxyzABC019";
const PATH = `${LABEL}._~!@#$^&*()+={}[]|;:<>?-/`;
const WORD = `${PATH},%'"\\\` `;

const text = (set: string, minLength: number, maxLength: number) =>
  fc.string({ unit: characters(set), minLength, maxLength });

const label = fc
  .tuple(text(LABEL, 1, 1), text(`${LABEL}-`, 0, 61), text(LABEL, 1, 1))
  .map((parts) => parts.join(""));
const portNumber = fc.integer({ min: 1, max: 65_535 });
const ipv4 = fc.ipV4();
const path = text(PATH, 0, 60).map((rest) => `/${rest}`);
const word = text(WORD.replaceAll(/['"\\ ]/g, ""), 1, 40);
const kernelWord = fc.oneof(
  word,
  fc.constantFrom(
    "panic=-1",
    "init=/bin/sh",
    "nfs.callback_tcpport=1",
    "a=b=c",
    "=x",
    "x=",
    "rw",
    "loglevel=8",
  ),
);
const nfsOption = fc
  .tuple(text("abcdefgh_09", 1, 12), fc.option(text("abcXYZ09_.:/-", 1, 12)))
  .map(([name, value]) => (value === null ? name : `${name}=${value}`));

/** Right values of each input, nearly always: a generated word may be one that another input decides. */
const right: Readonly<Partial<Record<InputName, fc.Arbitrary<unknown>>>> = {
  vmName: label,
  kernel: path,
  initramfs: path,
  rootfs: path,
  entryPoint: word,
  nfsServer: fc.oneof(ipv4, fc.constantFrom("127.0.0.1", "0.0.0.0", "localhost")),
  nfsPort: portNumber,
  nfsPath: path,
  nfsMountPort: fc.oneof(portNumber, fc.constant("rpcbind")),
  nfsOptions: fc.array(nfsOption, { maxLength: 12 }).map((options) => options.join(",")),
  kernelArgs: fc.array(kernelWord, { maxLength: 32 }),
  ip: fc.oneof(
    fc.constantFrom("static", "dhcp"),
    fc.integer({ min: 4, max: 254 }).map((last) => `10.0.2.${last}`),
  ),
  vcpus: fc.integer({ min: 1, max: 255 }),
  memoryMiB: fc.integer({ min: 32, max: 1_000_000 }),
  statefulDiskMiB: fc.oneof(fc.constant(0), fc.integer({ min: 16, max: 100_000 })),
  portForwards: fc.array(
    fc.record(
      {
        hostPort: portNumber,
        guestPort: portNumber,
        protocol: fc.constantFrom("tcp", "udp"),
        hostAddress: ipv4,
      },
      { requiredKeys: ["hostPort", "guestPort"] },
    ),
    { maxLength: 3 },
  ),
  readiness: fc.record(
    {
      timeoutSeconds: fc.integer({ min: 1, max: 86_400 }),
      console: fc.oneof({ weight: 4, arbitrary: fc.constantFrom("login:", "^ready$") }, word),
    },
    { requiredKeys: [] },
  ),
  backend: fc.record(
    { type: fc.constant("qemu"), machine: fc.constantFrom("q35", "microvm"), binary: path },
    { requiredKeys: ["type"] },
  ),
};

/** Inputs of an NFS root. */
const nfs = fc.record(
  { ...right, useNfsRoot: fc.constant(true) },
  { requiredKeys: ["kernel", "useNfsRoot", "nfsServer", "nfsPort"] },
);

/** Inputs of a disk root. */
const { nfsServer: _, ...ofDisk } = right;
const disk = fc.record(ofDisk, { requiredKeys: ["kernel", "rootfs"] });

/** Texts that break out of a place where they are not expected. */
const hostile = fc.oneof(
  fc.constantFrom(
    ..."\n,\r,\t,\0, ,\",',\\,%s,--,..,/../,::1,é,\u00a0,\u2028,\u009b31m,\ud800,$(id),`id`,${x},|,;,&,*,~".split(
      ",",
    ),
    ",",
    "x init=/bin/sh",
    '" init=/bin/sh "',
    "x\ninit=/bin/sh",
    "/x,port=1",
    "127.0.0.1,restrict=off",
    "nfsroot=10.0.0.9:/",
    "root=/dev/vdb",
    "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
    "x".repeat(5000),
  ),
  text(WORD, 0, 30),
  fc.string({ unit: "binary", maxLength: 20 }),
);

const nothingRight: fc.Arbitrary<unknown> = fc.oneof(
  hostile,
  hostile.map((value) => `/${value}`),
  hostile.map((value) => [value]),
  hostile.map((value) => ({ type: "qemu", binary: `/${value}` })),
  hostile.map((value) => [{ hostPort: 1, guestPort: 2, hostAddress: value }]),
  hostile.map((value) => [{ hostPort: 1, guestPort: 2, [value]: value }]),
  fc.constantFrom(
    0,
    -0,
    -1,
    1.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    2 ** 53,
    65_536,
    null,
    undefined,
    true,
  ),
  fc.anything({ withNullPrototype: true, withSparseArray: true }),
);

const name = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom<string>(...inputNames) },
  {
    weight: 1,
    arbitrary: fc.constantFrom("__proto__", "constructor", "toString", "hasOwnProperty", "nfsSever"),
  },
  { weight: 1, arbitrary: hostile },
);

/** Right inputs, with up to three of them given anew. */
const mutated = fc
  .tuple(fc.oneof(nfs, disk), fc.array(fc.tuple(name, nothingRight), { minLength: 1, maxLength: 3 }))
  .map(([inputs, changes]) => withOwn(inputs, changes));

const anything = fc
  .array(fc.tuple(name, nothingRight), { maxLength: 8 })
  .map((changes) => withOwn({}, changes));

/** Own properties, `__proto__` too. */
function withOwn(inputs: object, changes: readonly (readonly [string, unknown])[]): Inputs {
  return Object.fromEntries([...Object.entries(inputs), ...changes]);
}

/** Inputs that are right, nearly always. */
export const rightInputs: fc.Arbitrary<Inputs> = fc.oneof(nfs, disk) as fc.Arbitrary<Inputs>;

/** Inputs of any kind. */
export const anyInputs: fc.Arbitrary<Inputs> = fc.oneof(
  { weight: 2, arbitrary: rightInputs },
  { weight: 5, arbitrary: mutated },
  { weight: 1, arbitrary: anything },
);
