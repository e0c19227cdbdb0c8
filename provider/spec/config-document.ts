/**
 * Arrakis' config.yaml, one schema for all who read it: as `configFile` of a resource, and as the file of the REST server. Each key
 * works or is refused; what one reader has no use for is checked all the same.
 */

import { closest } from "fastest-levenshtein";
import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import { dirname, resolve } from "node:path";
import { z } from "zod";
import { hostPlaceOf } from "../boot/tap-link.js";
import { MicroVmError, messageOf, shown, systemCodeOf } from "../errors.js";
import { HOST_NAME, interfaceName, schemas } from "./schema.js";
import { valueAt } from "./validate.js";
import { parseYaml, YamlError, type YamlSource } from "./yaml-source.js";

/** An empty text, or nothing behind the colon, is Arrakis' own way to say nothing. */
const said = <Schema extends z.ZodType>(schema: Schema) =>
  z.preprocess((value) => (value === "" || value === null ? undefined : value), schema.optional());

/** YAML of Arrakis writes numbers as texts, too: "2048". */
const number = <Schema extends z.ZodType>(schema: Schema) =>
  said(
    z.preprocess(
      (value) => (typeof value === "string" && /^[0-9]{1,15}$/.test(value) ? Number(value) : value),
      schema,
    ),
  );

const integer = (min: number, max: number) => {
  const error = `an integer from ${min} to ${max}`;
  return number(z.int({ error }).min(min, { error }).max(max, { error }));
};

const text = said(z.string({ error: "a text" }));
/** Becomes absolute in {@link readConfigDocument}. */
const path = said(
  z.string({ error: "a path" }).regex(/^\P{Cc}*$/u, { error: "a path without control characters" }),
);
const port = integer(1, 65535);

const HOST = "an IP address or a host name";
const host = said(
  z.string({ error: HOST }).refine((name) => isIP(name) !== 0 || HOST_NAME.test(name), { error: HOST }),
);

const NETWORK = "an IPv4 network such as 10.20.1.0/24";
const subnet = said(
  z.string({ error: NETWORK }).refine((value) => hostPlaceOf(value) !== undefined, { error: NETWORK }),
);
const BRIDGE_IP = "an IPv4 address, with or without its prefix length, such as 10.20.1.1/24";
const bridgeIp = said(
  z
    .string({ error: BRIDGE_IP })
    .refine((value) => hostPlaceOf(value.includes("/") ? value : `${value}/24`) !== undefined, {
      error: BRIDGE_IP,
    }),
);

/** A range of more ports is a slip of the pen. */
const MOST_PORTS = 256;
const PORTS = `a port or a range of at most ${MOST_PORTS} such as 5736-5740`;

/** `"5901"`, `5901` or `"5736-5740"`: the ports one by one. */
const ports = z.union([z.int(), z.string()], { error: PORTS }).transform((value, context) => {
  const [, first = 0, last = first] =
    /^([0-9]{1,5})(?:-([0-9]{1,5}))?$/.exec(String(value))?.map(Number) ?? [];
  const end = Number.isNaN(last) ? first : last;
  const count = end - first + 1;
  if (first < 1 || end > 65535 || count < 1 || count > MOST_PORTS) {
    context.addIssue({ code: "custom", message: PORTS });
    return z.NEVER;
  }
  return Array.from({ length: count }, (_, step) => first + step);
});

const MAP = "keys with their values";
const section = <Shape extends z.core.$ZodLooseShape>(shape: Shape) => z.strictObject(shape, { error: MAP });

const restserver = section({
  /** Address to listen at. */
  host,
  port,
  /** Folder of the VMs and snapshots. */
  state_dir: path,
  bridge_name: said(interfaceName),
  /** With its prefix length, or without: then `bridge_subnet` has it. */
  bridge_ip: bridgeIp,
  bridge_subnet: subnet,
  /** Cloud Hypervisor's binary. */
  chv_bin: path,
  kernel: path,
  rootfs: path,
  initramfs: path,
  port_forwards: said(
    z.array(section({ port: ports, description: text }), { error: "a list of port and description" }),
  ),
  stateful_size_in_mb: number(schemas.statefulDiskMiB),
  guest_mem_percentage: integer(1, 100),
  nfs_enabled: said(schemas.useNfsRoot),
  nfs_server: said(schemas.nfsServer),
  nfs_port: port,
  nfs_path: said(schemas.nfsPath),
  // From here on: this project's own.
  hypervisor: said(z.enum(["cloud-hypervisor", "qemu"], { error: '"cloud-hypervisor" or "qemu"' })),
  /** File with the token that each request must carry. */
  token_file: path,
  tls_cert: path,
  tls_key: path,
  /** Regular expression that a console line of a ready guest matches. */
  ready_console: said(schemas.readiness.shape.console),
});

const document = section({
  hostservices: section({
    restserver,
    /** Read by Arrakis' command line client. */
    client: said(section({ server_host: host, server_port: port })),
  }),
  guestservices: said(
    section({
      /** Read by the guest's own code server. */
      codeserver: said(section({ port })),
      cmdserver: said(section({ port })),
    }),
  ),
});

const paths = [
  "state_dir",
  "chv_bin",
  "kernel",
  "rootfs",
  "initramfs",
  "token_file",
  "tls_cert",
  "tls_key",
] as const;

/** `hostservices.restserver` after validation, each key absent where the file does not say it; paths are absolute. */
export type RestServerSection = z.output<typeof restserver>;

/** A config.yaml that has been read. */
export interface ConfigDocument {
  readonly restserver: RestServerSection;
  /** `guestservices.cmdserver.port`. */
  readonly commandServerPort: number | undefined;
  /** The error that a key of `restserver` is to blame for: `expected` completes "expected …". */
  readonly refusal: (key: keyof RestServerSection, expected: string) => MicroVmError;
}

/**
 * Reads a config.yaml. Relative paths in it count from its own folder.
 *
 * @throws MicroVmError `config-file` when it cannot be read, is no YAML, has an unknown key, or a key holds something unusable; with line
 * and column, both counted from 1.
 */
export async function readConfigDocument(file: string): Promise<ConfigDocument> {
  const source = await readSource(file);
  const result = document.safeParse(source.value);
  if (!result.success) throw firstProblem(file, source, result.error.issues);
  const { hostservices, guestservices } = result.data;
  const folder = dirname(file);
  const absolute = paths.flatMap((key) => {
    const value = hostservices.restserver[key];
    return value === undefined ? [] : [[key, resolve(folder, value)] as const];
  });
  return {
    restserver: { ...hostservices.restserver, ...Object.fromEntries(absolute) },
    commandServerPort: guestservices?.cmdserver?.port,
    refusal: (key, expected) => {
      const at = ["hostservices", "restserver", key];
      return expectation(file, source, at, expected);
    },
  };
}

async function readSource(file: string): Promise<YamlSource> {
  try {
    return await parseYaml(await readFile(file, "utf8"));
  } catch (error) {
    if (error instanceof YamlError && error.place !== undefined) {
      throw wrong(`${file}:${error.place.line}:${error.place.column}: ${error.message}`, error);
    }
    if (!(error instanceof YamlError) && systemCodeOf(error) === undefined) throw error;
    throw wrong(`expected a readable YAML file at ${file}, got: ${messageOf(error)}`, error);
  }
}

/** Something wrong with the file; `expected` is absent for a key that there is no such thing as. */
interface Problem {
  readonly at: readonly PropertyKey[];
  readonly expected?: string;
}

/** The problem that comes first in the file: more would only push it off the screen. */
function firstProblem(file: string, source: YamlSource, issues: readonly z.core.$ZodIssue[]): MicroVmError {
  const problems = issues.flatMap((issue): Problem[] =>
    issue.code === "unrecognized_keys"
      ? issue.keys.map((key) => ({ at: [...issue.path, key] }))
      : [{ at: issue.path, expected: issue.message }],
  );
  const placeOf = ({ at, expected }: Problem) => source.placeOf(at, expected === undefined);
  const [first = { at: [], expected: MAP }] = problems.toSorted((one, other) => {
    const [a, b] = [placeOf(one), placeOf(other)];
    return a.line - b.line || a.column - b.column;
  });
  const { at, expected } = first;
  return expected === undefined
    ? wrong(`${whereIs(file, source, at, true)}: unknown key; did you mean "${meant(at)}"?`)
    : expectation(file, source, at, expected);
}

function expectation(
  file: string,
  source: YamlSource,
  at: readonly PropertyKey[],
  expected: string,
): MicroVmError {
  const found = shown(valueAt(source.value, at));
  return wrong(`${whereIs(file, source, at)}: expected ${expected}, got ${found}`);
}

/** `config.yaml:4:11: hostservices.restserver.port`. */
function whereIs(file: string, source: YamlSource, at: readonly PropertyKey[], ofKey = false): string {
  const { line, column } = source.placeOf(at, ofKey);
  const key = at.map((part) => (/^[\w-]{1,64}$/.test(String(part)) ? String(part) : shown(part))).join(".");
  return `${file}:${line}:${column}: ${key || "the document"}`;
}

function wrong(message: string, cause?: unknown): MicroVmError {
  return new MicroVmError("config-file", message, { input: "configFile", cause });
}

/** Every key of the file, dotted. */
const known: readonly string[] = [
  ...Object.keys(restserver.shape).map((key) => `hostservices.restserver.${key}`),
  "hostservices",
  "hostservices.restserver",
  "hostservices.restserver.port_forwards.port",
  "hostservices.restserver.port_forwards.description",
  "hostservices.client",
  "hostservices.client.server_host",
  "hostservices.client.server_port",
  "guestservices",
  "guestservices.codeserver",
  "guestservices.codeserver.port",
  "guestservices.cmdserver",
  "guestservices.cmdserver.port",
];

/** The key that stands for an unknown one: one of this name elsewhere in the file, else the most similar one beside it. */
function meant(at: readonly PropertyKey[]): string {
  const names = at.filter((part) => typeof part === "string");
  const name = names.at(-1)?.slice(0, 64) ?? "";
  const elsewhere = known.find((key) => key.endsWith(`.${name}`) || key === name);
  if (elsewhere !== undefined) return elsewhere;
  const around = names
    .slice(0, -1)
    .map((part) => `${part}.`)
    .join("");
  const beside = known.filter((key) => key.startsWith(around) && !key.slice(around.length).includes("."));
  return closest(
    name,
    beside.map((key) => key.slice(around.length)),
  );
}
