/** Arrakis' config.yaml as a source of inputs: `hostservices.restserver` of the file that `configFile` names. */

import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { z } from "zod";
import { MicroVmError, messageOf, shown } from "../errors.js";
import type { InputName } from "./schema.js";
import { valueAt } from "./validate.js";

/** An empty text is Arrakis' own way to say nothing. */
const text = z.string().transform((value) => (value === "" ? undefined : value));

/** YAML of Arrakis writes numbers as strings, too: "2048". */
const number = z.union([
  z.int(),
  z
    .string()
    .regex(/^[0-9]+$/)
    .transform(Number),
]);

const restServer = z.object({
  kernel: text.optional(),
  rootfs: text.optional(),
  initramfs: text.optional(),
  nfs_enabled: z.boolean().optional(),
  nfs_server: text.optional(),
  nfs_port: number.optional(),
  nfs_path: text.optional(),
  stateful_size_in_mb: number.optional(),
});

/** What of it only a back end with a bridge reads. */
const bridged = z.object({
  bridge_name: text.optional(),
  /** With its prefix length, or without: then `bridge_subnet` has it. */
  bridge_ip: text.optional(),
  bridge_subnet: text.optional(),
  port_forwards: z.array(z.object({ port: z.union([z.int(), z.string()]) })).nullish(),
});

const inDocument = <Schema extends z.ZodType>(restserver: Schema) =>
  z.object({ hostservices: z.object({ restserver }) });
const document = inDocument(restServer);
const bridgedDocument = inDocument(bridged);

/** What a config.yaml says of inputs; each absent where the file does not name it. */
export type ConfigFileValues = { readonly [Name in InputName]?: unknown };

/**
 * Reads a config.yaml. Relative paths in it count from its own folder. Keys that concern the Arrakis server
 * alone (its address, its VMM) are left to it.
 *
 * @param hasBridge Whether the back end gives its guests a bridge: then the file's bridge and port forwards count.
 * @throws MicroVmError `config-file` when it cannot be read or a key holds a value of the wrong type.
 */
export async function readConfigFile(path: string, hasBridge = false): Promise<ConfigFileValues> {
  // Loaded here: only programs with a configFile pay for it.
  const yaml = await import("js-yaml");
  let parsed: unknown;
  try {
    parsed = yaml.load(await readFile(path, "utf8"));
  } catch (error) {
    throw new MicroVmError(
      "config-file",
      `expected a readable YAML file at ${path}, got: ${messageOf(error)}`,
      {
        input: "configFile",
        cause: error,
      },
    );
  }
  const server = parse(document, parsed, path).hostservices.restserver;
  const folder = dirname(path);
  const absolute = (file: string | undefined) => (file === undefined ? undefined : resolve(folder, file));
  return {
    kernel: absolute(server.kernel),
    rootfs: absolute(server.rootfs),
    initramfs: absolute(server.initramfs),
    useNfsRoot: server.nfs_enabled,
    nfsServer: server.nfs_server,
    nfsPort: server.nfs_port,
    nfsPath: server.nfs_path,
    statefulDiskMiB: server.stateful_size_in_mb,
    ...(hasBridge ? bridgeValues(parse(bridgedDocument, parsed, path).hostservices.restserver, path) : {}),
  };
}

function parse<Schema extends z.ZodType>(schema: Schema, parsed: unknown, path: string): z.output<Schema> {
  const result = schema.safeParse(parsed);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const key = issue?.path.join(".") || "the document";
  const found = shown(valueAt(parsed, issue?.path ?? []));
  throw wrong(path, key, `${issue?.message ?? "unusable"} (${found})`);
}

function wrong(path: string, key: string, why: string): MicroVmError {
  return new MicroVmError("config-file", `${path}: ${key}: ${why}`, { input: "configFile" });
}

function bridgeValues(server: z.output<typeof bridged>, path: string): ConfigFileValues {
  const { bridge_name: bridge, bridge_ip: ip, bridge_subnet: of, port_forwards: forwards } = server;
  const subnet = ip === undefined || ip.includes("/") ? (ip ?? of) : `${ip}/${of?.split("/")[1] ?? ""}`;
  const isNamed = bridge !== undefined || subnet !== undefined;
  return {
    network: isNamed ? { bridge, subnet } : undefined,
    portForwards: forwards?.flatMap(({ port }, index) => forwardsOf(port, path, index)),
  };
}

/** A range of more ports is a slip of the pen. */
const MOST_PORTS = 256;

/** A port, or a range of them such as `5736-5740`: each leads from this host to the same port of the guest. */
function forwardsOf(port: number | string, path: string, index: number): unknown[] {
  const [, first, last = first] = /^([0-9]{1,5})(?:-([0-9]{1,5}))?$/.exec(String(port)) ?? [];
  const count = Number(last) - Number(first) + 1;
  if (first === undefined || count < 1 || count > MOST_PORTS) {
    const key = `hostservices.restserver.port_forwards.${index}.port`;
    throw wrong(
      path,
      key,
      `expected a port or a range of at most ${MOST_PORTS} such as 5736-5740 (${shown(port)})`,
    );
  }
  return Array.from({ length: count }, (_, step) => ({
    hostPort: Number(first) + step,
    guestPort: Number(first) + step,
  }));
}
