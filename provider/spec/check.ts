/** Inputs of a program to the spec: validated, from every source, with every default filled in. */

import type { LocalBackend, Owner } from "../backends/backend.js";
import { withTransferSizes } from "../boot/cmdline.js";
import { MicroVmError } from "../errors.js";
import { readConfigFile, type ConfigFileValues } from "./config-file.js";
import { defaultMountPort, defaults, withPanic } from "./defaults.js";
import { generatedName, rootDigest, rootInputs } from "./identity.js";
import { crossFieldFailures } from "./rules.js";
import type { InputName, InputValues } from "./schema.js";
import { isOnServer } from "./server-inputs.js";
import { serverVmFailures } from "./server-rules.js";
import type { Spec } from "./spec.js";
import { isInputName, validateInputs, valueAt, type Failure } from "./validate.js";

/** What the SDK says of the resource beside its inputs. */
export interface ResourceContext {
  readonly owner: Owner;
  /** Whether the person opted into making the new VM before the old one goes. */
  readonly createFirst: boolean;
  /** Names of inputs that are Pulumi secrets. */
  readonly secretInputs: ReadonlySet<string>;
  /** The VM that exists already, if its name was generated: kept when an alias gives its resource a new URN. */
  readonly generatedBefore?: { readonly vmName: string; readonly rootDigest: string };
}

/** Inputs after the first stage. */
export interface SpecResult {
  /**
   * Present when every input is right and those that decide the command line and the disks are known. Another that is
   * unknown stands at its default here: see `unknown`.
   */
  readonly spec?: Spec;
  /** Values after defaults, as far as they are known. */
  readonly values: InputValues;
  /** Inputs that this preview does not know yet, or that are wrong; those that are computed from them included. */
  readonly unknown: ReadonlySet<InputName>;
  readonly failures: readonly Failure[];
}

/** Inputs whose value ends up in the kernel command line or the list of disks, which state shows in clear. */
const shownInClear: readonly InputName[] = [
  "vmName",
  ...rootInputs,
  "kernelArgs",
  "ip",
  "network",
  "entryPoint",
];

/** Inputs that decide the command line and the disks. */
const bootInputs: readonly InputName[] = [
  ...shownInClear,
  "backend",
  "guestAccess",
  "kernel",
  "initramfs",
  "vcpus",
  "statefulDiskMiB",
];

/** Inputs that a config.yaml can give. */
const configFileInputs: readonly InputName[] = [
  "kernel",
  "rootfs",
  "initramfs",
  "useNfsRoot",
  "nfsServer",
  "nfsPort",
  "nfsPath",
  "statefulDiskMiB",
];

/** Inputs that it can give to a back end with a bridge. */
const bridgeInputs: readonly InputName[] = ["network", "portForwards"];

/** Inputs of a VM on a server that have a default here. */
const serverDefaults = [
  "useNfsRoot",
  "nfsPath",
  "powerState",
  "readiness",
  "shutdownTimeoutSeconds",
  "preflight",
] as const satisfies readonly (keyof typeof defaults)[];

/** Validates inputs and fills in the rest: argument, then config.yaml, then default. */
export async function specOf(
  inputs: Readonly<Record<string, unknown>>,
  context: ResourceContext,
): Promise<SpecResult> {
  const secret = context.secretInputs;
  const given = validateInputs(inputs, secret);
  const failures = [...given.failures, ...secretFailures(secret)];
  const unknown = new Set(given.unknown);
  const values: InputValues = { ...given.values };

  if (values.configFile !== undefined && !isOnServer(inputs)) {
    failures.push(...(await takeConfigFile(values.configFile, values, inputs)));
  }

  // Of an input that is wrong by itself, nothing follows: a rule over it would only say so again.
  for (const { input } of failures) {
    const name = input.split(".")[0] ?? input;
    if (!isInputName(name)) continue;
    delete values[name];
    unknown.add(name);
  }
  if (unknown.has("configFile")) {
    const names = hasBridge(inputs) ? [...configFileInputs, ...bridgeInputs] : configFileInputs;
    for (const name of names) if (isAbsent(inputs[name])) unknown.add(name);
  }
  failures.push(...serverWithoutNfsRoot(inputs, values, unknown));
  if (isOnServer(inputs)) fillServerDefaults(values, unknown);
  else fillDefaults(values, unknown);
  nameVm(values, unknown, context);
  const isServers = isOnServer(inputs);
  failures.push(...(isServers ? serverVmFailures : crossFieldFailures)({ values, unknown }));
  // Of the back end, its type decides: another field of it may become known later.
  const backend = values.backend ?? standInOf(inputs["backend"]);
  const isKnown = (name: InputName) => !unknown.has(name) || (name === "backend" && backend !== undefined);
  const decided = failures.length === 0 && !isServers && bootInputs.every(isKnown);
  return { spec: decided ? specFrom({ ...values, backend }, unknown) : undefined, values, unknown, failures };
}

/** A back end of which only the type is known; undefined where that is not, either. */
function standInOf(backend: unknown): LocalBackend | undefined {
  switch (valueAt(backend, ["type"])) {
    case "qemu":
      return defaults.backend;
    case "cloud-hypervisor":
      return { type: "cloud-hypervisor" };
    default:
      return undefined;
  }
}

function isAbsent(value: unknown): boolean {
  return value === undefined || value === null;
}

function hasBridge(inputs: Readonly<Record<string, unknown>>): boolean {
  return standInOf(inputs["backend"])?.type === "cloud-hypervisor";
}

function secretFailures(secret: ReadonlySet<string>): Failure[] {
  return shownInClear.flatMap((input) =>
    secret.has(input)
      ? [
          {
            input,
            text: "a secret cannot be used here: the value stands in the kernel command line or the disks, which Pulumi's state shows in clear",
          },
        ]
      : [],
  );
}

async function takeConfigFile(
  path: string,
  values: InputValues,
  inputs: Readonly<Record<string, unknown>>,
): Promise<readonly Failure[]> {
  let file: ConfigFileValues;
  try {
    file = await readConfigFile(path, hasBridge(inputs));
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    return [{ input: "configFile", code: error.code, text: error.text }];
  }
  const useNfsRoot = inputs["useNfsRoot"] ?? file.useNfsRoot;
  const absent = Object.entries(file).filter(
    ([name, value]) =>
      value !== undefined &&
      isAbsent(inputs[name]) &&
      // The file's initramfs is Arrakis' own: it mounts /dev/vda and never reaches an NFS root.
      !(name === "initramfs" && useNfsRoot !== undefined && useNfsRoot !== false),
  );
  const checked = validateInputs(Object.fromEntries(absent), new Set());
  Object.assign(values, checked.values);
  return checked.failures.map((failure) => ({ ...failure, text: `${failure.text} (from ${path})` }));
}

/** A server that is named while the root resolves to a disk would be ignored in silence. */
function serverWithoutNfsRoot(
  inputs: Readonly<Record<string, unknown>>,
  values: InputValues,
  unknown: ReadonlySet<InputName>,
): Failure[] {
  if (unknown.has("useNfsRoot") || values.useNfsRoot === true || isAbsent(inputs["nfsServer"])) return [];
  return [
    {
      input: "nfsServer",
      text: "expected useNfsRoot: true beside it: without it the VM boots from a disk and never asks this server",
    },
  ];
}

function fillDefaults(values: InputValues, unknown: Set<InputName>): void {
  for (const [name, value] of Object.entries(defaults) as [InputName, never][]) {
    if (values[name] === undefined && !unknown.has(name)) values[name] = value;
  }
  if (values.kernelArgs !== undefined) values.kernelArgs = [...withPanic(values.kernelArgs)];
  if (unknown.has("useNfsRoot")) return;
  if (values.useNfsRoot === true) {
    delete values.rootfs;
    unknown.delete("rootfs");
    if (!unknown.has("nfsOptions")) values.nfsOptions = withTransferSizes(values.nfsOptions);
    if (values.nfsMountPort === undefined && !unknown.has("nfsMountPort")) {
      if (unknown.has("nfsPort")) unknown.add("nfsMountPort");
      else if (values.nfsPort !== undefined) values.nfsMountPort = defaultMountPort(values.nfsPort);
    }
    return;
  }
  withoutNfs(values, unknown);
}

/** What else is absent, the server decides. */
function fillServerDefaults(values: InputValues, unknown: Set<InputName>): void {
  for (const name of serverDefaults) {
    if (values[name] === undefined && !unknown.has(name)) Object.assign(values, { [name]: defaults[name] });
  }
  if (values.useNfsRoot === true) {
    delete values.rootfs;
    unknown.delete("rootfs");
  }
  if (values.useNfsRoot === false && !unknown.has("useNfsRoot")) withoutNfs(values, unknown);
}

function withoutNfs(values: InputValues, unknown: Set<InputName>): void {
  for (const name of [
    "nfsServer",
    "nfsPort",
    "nfsPath",
    "nfsMountPort",
    "nfsOptions",
    "nfsExport",
  ] as const) {
    delete values[name];
    unknown.delete(name);
  }
}

function nameVm(values: InputValues, unknown: Set<InputName>, context: ResourceContext): void {
  if (values.vmName !== undefined || unknown.has("vmName")) return;
  const { owner, createFirst, generatedBefore: before } = context;
  if (createFirst && rootInputs.some((name) => unknown.has(name))) {
    unknown.add("vmName");
    return;
  }
  const digest = createFirst ? rootDigest(values) : undefined;
  const isKept = before !== undefined && (digest === undefined || digest === before.rootDigest);
  values.vmName = isKept ? before.vmName : generatedName(owner.urn, digest);
}

function specFrom(values: InputValues, unknown: ReadonlySet<string>): Spec {
  const { configFile: _, acceptStaleRoot: __, ...spec } = values;
  const standIns = Object.entries(defaults).filter(([name]) => unknown.has(name));
  return { ...Object.fromEntries(standIns), ...spec } as Spec;
}
