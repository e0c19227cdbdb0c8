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

const document = z.object({ hostservices: z.object({ restserver: restServer }) });

/** What a config.yaml says of inputs; each absent where the file does not name it. */
export type ConfigFileValues = { readonly [Name in InputName]?: unknown };

/**
 * Reads a config.yaml. Relative paths in it count from its own folder. Keys that concern the Arrakis server
 * alone (its address, its bridge, its VMM) are left to it.
 *
 * @throws MicroVmError `config-file` when it cannot be read or a key holds a value of the wrong type.
 */
export async function readConfigFile(path: string): Promise<ConfigFileValues> {
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
  const result = document.safeParse(parsed);
  if (!result.success) {
    const issue = result.error.issues[0];
    const key = issue?.path.join(".") || "the document";
    throw new MicroVmError(
      "config-file",
      `${path}: ${key}: ${issue?.message ?? "unusable"} (${shown(valueAt(parsed, issue?.path ?? []))})`,
      { input: "configFile" },
    );
  }
  const server = result.data.hostservices.restserver;
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
  };
}
