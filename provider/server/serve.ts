/** The whole server: config, state directory, VMs, HTTP; from its start to its stop. */

import { readFile, realpath } from "node:fs/promises";
import { createSecureContext } from "node:tls";
import type { FastifyInstance } from "fastify";
import type { LocalBackend } from "../backends/backend.js";
import { MicroVmError, messageOf, systemCodeOf } from "../errors.js";
import { withFileLock } from "../host/file-lock.js";
import { defaultStateDirectory, openStateDirectory } from "../host/state-directory.js";
import { noticeText } from "../notices.js";
import { hostFindings } from "../preflight/host-findings.js";
import { defaults } from "../spec/defaults.js";
import { isLoopback, readToken } from "./access.js";
import { allRoutes } from "./all-routes.js";
import { Metrics } from "./metrics.js";
import { readServerConfig, type ServerConfig } from "./server-config.js";
import { buildServer } from "./server.js";
import { Vms } from "./vms.js";

/** What the server's operator says beside config.yaml. */
export interface ServeOptions {
  readonly config: string;
  readonly host?: string;
  readonly port?: number;
  readonly stateDirectory?: string;
  readonly allowedHosts: readonly string[];
  /** How long a guest may take to power itself off before it is forced; 10 by default. */
  readonly shutdownTimeoutSeconds?: number;
  /** How long requests may take to end when the server is asked to stop, 30 by default; then what they make is undone. */
  readonly stopTimeoutSeconds?: number;
  readonly insecure: boolean;
}

/** A server that listens. */
export interface Running {
  /** `http://127.0.0.1:7000` */
  readonly url: string;
  /** Lets requests end, and undoes what they make when they take too long. VMs run on. */
  stop(): Promise<void>;
  /** No longer waits for requests to end by themselves. */
  hurry(): void;
}

const STOP_TIMEOUT_SECONDS = 30;

/**
 * Starts the server.
 *
 * @param log Where its log goes, as lines of JSON.
 * @throws MicroVmError
 */
export async function serve(options: ServeOptions, log: { write(line: string): void }): Promise<Running> {
  const config = await readServerConfig(await realPath(options.config));
  const host = options.host ?? config.host;
  const token = config.tokenFile === undefined ? undefined : await readToken(config.tokenFile);
  if (token === undefined && !isLoopback(host) && !options.insecure) throw openToAll(host);
  const state = await openStateDirectory(
    options.stateDirectory ?? config.stateDirectory ?? defaultStateDirectory(),
  );
  const giveUp = await lock(state.path);
  try {
    return await start({ options, config, host, token, stateDirectory: state.path, giveUp, log });
  } catch (error) {
    giveUp();
    throw error;
  }
}

/** What a start is made from. */
interface Start {
  readonly options: ServeOptions;
  readonly config: ServerConfig;
  readonly host: string;
  readonly token: string | undefined;
  /** Absolute path; locked. */
  readonly stateDirectory: string;
  /** Lets another server have the state directory. */
  readonly giveUp: () => void;
  readonly log: { write(line: string): void };
}

async function start({ options, config, host, token, stateDirectory, giveUp, log }: Start): Promise<Running> {
  const {
    shutdownTimeoutSeconds = defaults.shutdownTimeoutSeconds,
    stopTimeoutSeconds = STOP_TIMEOUT_SECONDS,
    allowedHosts,
  } = options;
  const backend = backendIn(config);
  const stopped = new AbortController();
  const metrics = new Metrics();
  const work = { signal: stopped.signal, notice: (line: string) => app.log.info(line) };
  const vms = new Vms({ config, backend, stateDirectory, shutdownTimeoutSeconds }, metrics, work);
  const app: FastifyInstance = buildServer({
    served: { vms, metrics, unusable: async () => await whyUnusable(backend, config) },
    routes: allRoutes,
    access: { token, hostNames: [host, ...allowedHosts].map((name) => name.toLowerCase()) },
    tls: config.tls === undefined ? undefined : await readTls(config.tls),
    log,
  });
  for (const key of config.unused)
    work.notice(noticeText("key-unused", { key, file: config.path, hypervisor: config.hypervisor }));
  const { failed, ...recovered } = await vms.recover();
  app.log.info(recovered, "took up the VMs of the state directory");
  for (const [vmName, why] of failed) app.log.error({ vmName }, why);
  // Starts that recover() goes on with are among what is in hand.
  const end = async (): Promise<void> => {
    stopped.abort();
    await vms.atRest();
  };
  let url: string;
  try {
    url = await listen(app, host, options.port ?? config.port, config.tls !== undefined);
  } catch (error) {
    await end();
    throw error;
  }
  return {
    url,
    async stop() {
      const patience = setTimeout(() => stopped.abort(), stopTimeoutSeconds * 1000);
      await app.close();
      clearTimeout(patience);
      await end();
      giveUp();
    },
    hurry: () => stopped.abort(),
  };
}

/**
 * Takes the state directory for this server, so that no two of them work on one VM. Whatever ends this process gives it up.
 *
 * @returns What gives it up.
 * @throws MicroVmError `state-directory`
 */
async function lock(stateDirectory: string): Promise<() => void> {
  const busy = (): Error =>
    new MicroVmError(
      "state-directory",
      `another microvm-restserver serves the VMs in ${stateDirectory}; stop that one, or name another folder by state_dir or --state-dir`,
    );
  return await new Promise((resolve, reject) => {
    const hold = async (): Promise<void> => await new Promise<void>((giveUp) => resolve(giveUp));
    withFileLock(stateDirectory, 0, busy, hold).catch(reject);
  });
}

/** Why this host cannot run a VM now; undefined when it can. */
async function whyUnusable(backend: LocalBackend, { memoryMiB }: ServerConfig): Promise<string | undefined> {
  const findings = await hostFindings(backend, memoryMiB, undefined);
  return findings.find(({ certain }) => certain)?.text;
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

/** @throws MicroVmError `config-file`: a file cannot be read, or the two are no certificate and its key. */
async function readTls(paths: NonNullable<ServerConfig["tls"]>): Promise<{ cert: string; key: string }> {
  const pair = { cert: await readPem("tls_cert", paths.cert), key: await readPem("tls_key", paths.key) };
  try {
    createSecureContext(pair);
    return pair;
  } catch (error) {
    const text = `tls_cert, tls_key: expected a certificate at ${paths.cert} and its own key at ${paths.key}, in PEM, got: ${messageOf(error)}`;
    throw new MicroVmError("config-file", text, { cause: error });
  }
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

async function listen(app: FastifyInstance, host: string, port: number, isTls: boolean): Promise<string> {
  // The library knows nothing of the TLS of a server that it is given.
  const shown = (url: string): string => (isTls ? url.replace(/^http:/, "https:") : url);
  try {
    return shown(
      await app.listen({ host, port, listenTextResolver: (url) => `Server listening at ${shown(url)}` }),
    );
  } catch (error) {
    const code = systemCodeOf(error);
    if (code === undefined) throw error;
    const text = `cannot listen at port ${port} of ${host}: ${messageOf(error)}; choose another with --port, or end what listens there`;
    throw new MicroVmError(code === "EADDRINUSE" ? "port-taken" : "host-unusable", text, { cause: error });
  }
}
