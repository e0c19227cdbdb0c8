#!/usr/bin/env node
/** `microvm-restserver`: serves Arrakis' REST API on this host's own VMs. */

import { readFile, realpath } from "node:fs/promises";
import { parseArgs } from "node:util";
import type { FastifyInstance } from "fastify";
import type { LocalBackend } from "../backends/backend.js";
import { MicroVmError, messageOf, systemCodeOf, withCode } from "../errors.js";
import { defaultStateDirectory, openStateDirectory } from "../host/state-directory.js";
import { hostFindings } from "../preflight/host-findings.js";
import { isLoopback, readToken } from "../server/access.js";
import { allRoutes } from "../server/all-routes.js";
import { Metrics } from "../server/metrics.js";
import { readServerConfig, type ServerConfig } from "../server/server-config.js";
import { buildServer } from "../server/server.js";
import { Vms } from "../server/vms.js";
import { defaults } from "../spec/defaults.js";

const USAGE = `Usage: microvm-restserver --config FILE [OPTIONS]

Options:
  --config FILE         Arrakis' config.yaml
  --host ADDRESS        where to listen, instead of the file's host
  --port PORT           instead of the file's port; 0 takes a free one
  --state-dir DIR       where the VMs are kept, instead of the file's state_dir
  --allowed-host NAME   a name by which callers may call this server; may be given again
  --shutdown-timeout S  how many seconds a guest may take to power off before it is forced (10)
  --insecure            listen at an address of the network without a token
  -h, --help            print this
`;

/** How long requests may take to end when the server is asked to stop, in seconds; then what they make is undone. */
const GRACE_SECONDS = 30;

/** Options of the command line. */
export interface Options {
  readonly config: string;
  readonly host?: string;
  readonly port?: number;
  readonly stateDirectory?: string;
  readonly allowedHosts: readonly string[];
  readonly shutdownTimeoutSeconds: number;
  readonly insecure: boolean;
}

/** A server that listens. */
export interface Running {
  /** `http://127.0.0.1:7000` */
  readonly url: string;
  /** Lets requests end, and undoes what they make when they take too long. VMs run on. */
  stop(): Promise<void>;
}

/**
 * Starts the server.
 *
 * @param log Where its log goes, as lines of JSON.
 * @throws MicroVmError
 */
export async function serve(options: Options, log: { write(line: string): void }): Promise<Running> {
  const config = await readServerConfig(await realPath(options.config));
  const host = options.host ?? config.host;
  const token = config.tokenFile === undefined ? undefined : await readToken(config.tokenFile);
  if (token === undefined && !isLoopback(host) && !options.insecure) throw openToAll(host);
  const backend = backendIn(config);
  const state = await openStateDirectory(
    options.stateDirectory ?? config.stateDirectory ?? defaultStateDirectory(),
  );
  const stopped = new AbortController();
  const metrics = new Metrics();
  const work = { signal: stopped.signal, notice: (line: string) => app.log.info(line) };
  const { shutdownTimeoutSeconds } = options;
  const workshop = { config, backend, stateDirectory: state.path, shutdownTimeoutSeconds };
  const vms = new Vms(workshop, metrics, work);
  const unusable = async (): Promise<string | undefined> =>
    (await hostFindings(backend, config.memoryMiB, undefined)).find(({ certain }) => certain)?.text;
  const app: FastifyInstance = buildServer({
    served: { vms, metrics, unusable },
    routes: allRoutes,
    access: { token, hostNames: [host, ...options.allowedHosts].map((name) => name.toLowerCase()) },
    tls: config.tls === undefined ? undefined : await readTls(config.tls),
    log,
  });
  for (const key of config.unused)
    app.log.warn(`${key} in ${config.path} is of no use to ${config.hypervisor}`);
  const { failed, ...recovered } = await vms.recover();
  app.log.info(recovered, "took up the VMs of the state directory");
  for (const [vmName, why] of failed) app.log.error({ vmName }, why);
  const url = await listen(app, host, options.port ?? config.port);
  return {
    url,
    async stop() {
      const patience = setTimeout(() => stopped.abort(), GRACE_SECONDS * 1000);
      await app.close();
      clearTimeout(patience);
    },
  };
}

function backendIn({ hypervisor, hypervisorBinary: binary }: ServerConfig): LocalBackend {
  switch (hypervisor) {
    case "qemu":
      return defaults.backend;
    case "cloud-hypervisor":
      return { type: "cloud-hypervisor", ...(binary === undefined ? {} : { binary }) };
    default:
      return hypervisor satisfies never;
  }
}

async function realPath(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    throw new MicroVmError("config-file", `expected a readable file at ${path}, got: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

async function readTls({ cert, key }: { readonly cert: string; readonly key: string }) {
  return { cert: await readPem("tls_cert", cert), key: await readPem("tls_key", key) };
}

async function readPem(name: string, path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new MicroVmError("config-file", `${name}: ${messageOf(error)}`, { cause: error });
  }
}

function openToAll(host: string): MicroVmError {
  return new MicroVmError(
    "config-file",
    `the server would listen at ${host}, where others on the network can start VMs on this host: name a file with a token by token_file in the config, ` +
      "or listen at 127.0.0.1 (--host 127.0.0.1), or allow it to everyone with --insecure",
  );
}

async function listen(app: FastifyInstance, host: string, port: number): Promise<string> {
  try {
    return await app.listen({ host, port });
  } catch (error) {
    const code = systemCodeOf(error);
    if (code === undefined) throw error;
    const text = `cannot listen at port ${port} of ${host}: ${messageOf(error)}; choose another with --port, or end what listens there`;
    throw new MicroVmError(code === "EADDRINUSE" ? "port-taken" : "host-unusable", text, { cause: error });
  }
}

/**
 * Runs one command line, until SIGTERM or SIGINT.
 *
 * @param words What follows the program's name.
 * @returns Exit status: 0 done, 1 failed, 2 not understood.
 */
export async function main(words: readonly string[]): Promise<number> {
  let options: Options;
  try {
    const parsed = parse(words);
    if (parsed === undefined) {
      process.stdout.write(USAGE);
      return 0;
    }
    options = parsed;
  } catch (error) {
    process.stderr.write(`microvm-restserver: ${messageOf(error)}\n\n${USAGE}`);
    return 2;
  }
  try {
    const running = await serve(options, process.stdout);
    await new Promise<void>((resolve) => {
      process.once("SIGTERM", resolve);
      process.once("SIGINT", resolve);
    });
    await running.stop();
    return 0;
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    process.stderr.write(`microvm-restserver: ${withCode(error.message, error.code)}\n`);
    return 1;
  }
}

/** @returns undefined when help is asked for. */
function parse(words: readonly string[]): Options | undefined {
  const { values } = parseArgs({
    args: [...words],
    options: {
      config: { type: "string" },
      host: { type: "string" },
      port: { type: "string" },
      "state-dir": { type: "string" },
      "allowed-host": { type: "string", multiple: true, default: [] },
      "shutdown-timeout": { type: "string", default: String(defaults.shutdownTimeoutSeconds) },
      insecure: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const { config, host, port, insecure } = values;
  if (values.help) return undefined;
  if (config === undefined) throw new Error("expected --config FILE");
  return {
    config,
    host,
    port: port === undefined ? undefined : integerIn("--port", port, 65_535),
    stateDirectory: values["state-dir"],
    allowedHosts: values["allowed-host"],
    shutdownTimeoutSeconds: integerIn("--shutdown-timeout", values["shutdown-timeout"], 3600),
    insecure,
  };
}

function integerIn(option: string, text: string, most: number): number {
  if (/^[0-9]{1,5}$/.test(text) && Number(text) <= most) return Number(text);
  throw new Error(`${option}: expected an integer from 0 to ${most}, got ${text}`);
}

async function run(): Promise<void> {
  process.exitCode = await main(process.argv.slice(2));
}

if (require.main === module) void run();
