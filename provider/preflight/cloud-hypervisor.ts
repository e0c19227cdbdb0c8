/** Whether this host can run guests with Cloud Hypervisor: its binary, its version, KVM. */

import { execFile } from "node:child_process";
import { stat } from "node:fs/promises";
import { promisify } from "node:util";

import type { CloudHypervisorBackend } from "../backends/backend.js";
import { assertVersion, OLDEST_VERSION } from "../backends/cloud-hypervisor/version.js";
import { MicroVmError, messageOf, shown } from "../errors.js";
import { findProgram } from "../host/program.js";
import { findKvm, type HostPaths } from "./host.js";

const run = promisify(execFile);

/** The Cloud Hypervisor that would run a guest. */
export interface CloudHypervisorProgram {
  /** Absolute path. */
  readonly path: string;
  /** `v53.0`. */
  readonly version: string;
}

const BINARY = "cloud-hypervisor";
const PROBE_MILLISECONDS = 10_000;

/**
 * The program for a back end's options, on a host whose KVM can run a guest.
 *
 * @throws MicroVmError `host-unusable`
 */
export async function cloudHypervisorHost(
  backend: CloudHypervisorBackend,
  env: NodeJS.ProcessEnv = process.env,
): Promise<CloudHypervisorProgram> {
  const [program] = await Promise.all([usableCloudHypervisor(backend, env), assertKvm()]);
  return program;
}

/** @throws MicroVmError `host-unusable` where KVM cannot run a guest: Cloud Hypervisor has no other way to. */
export async function assertKvm(paths: HostPaths = {}): Promise<void> {
  const kvm = await findKvm(paths);
  if (kvm.usable) return;
  throw new MicroVmError(
    "host-unusable",
    `Cloud Hypervisor needs KVM, which cannot run a guest on this host: ${kvm.why}. Use a host with hardware virtualisation, or backend { type: "qemu" }`,
    { input: "backend.type" },
  );
}

const known = new Map<string, Promise<string>>();

/**
 * The Cloud Hypervisor binary: `backend.binary`, else `CLOUD_HYPERVISOR`, else `cloud-hypervisor` on PATH. It is asked for its
 * version once per process and file.
 *
 * @throws MicroVmError `host-unusable` when there is none, it does not run, or it is too old.
 */
export async function usableCloudHypervisor(
  { binary }: CloudHypervisorBackend,
  env: NodeJS.ProcessEnv = process.env,
): Promise<CloudHypervisorProgram> {
  const path = findBinary(binary, env);
  const { mtimeMs, ino } = await stat(path);
  const key = `${path} ${ino} ${mtimeMs}`;
  const asked = known.get(key) ?? versionOf(path);
  known.set(key, asked);
  const version = await asked;
  assertVersion(version, path);
  return { path, version };
}

function findBinary(binary: string | undefined, env: NodeJS.ProcessEnv): string {
  const ofEnvironment = env["CLOUD_HYPERVISOR"];
  if (binary !== undefined) return findNamed(binary, "backend.binary", env);
  if (ofEnvironment) return findNamed(ofEnvironment, "CLOUD_HYPERVISOR", env);
  const remedy = `install Cloud Hypervisor ${OLDEST_VERSION}.0 or later, or name it by backend.binary or CLOUD_HYPERVISOR`;
  return findProgram(BINARY, remedy, env);
}

function findNamed(path: string, input: string, env: NodeJS.ProcessEnv): string {
  try {
    return findProgram(path, `correct the path, or leave it out to use ${BINARY} on PATH`, env);
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    throw new MicroVmError(error.code, error.text, { input, cause: error });
  }
}

async function versionOf(path: string): Promise<string> {
  let said: string;
  try {
    said = (await run(path, ["--version"], { timeout: PROBE_MILLISECONDS })).stdout;
  } catch (error) {
    throw new MicroVmError("host-unusable", `${path} --version failed: ${messageOf(error)}`, {
      cause: error,
    });
  }
  const version = /^cloud-hypervisor (v\d+\.\S+)/m.exec(said)?.[1];
  if (version !== undefined) return version;
  throw new MicroVmError(
    "host-unusable",
    `${path} is no Cloud Hypervisor: it answers --version with ${shown(said.trim())}`,
    { input: "backend.binary" },
  );
}
