/** Snapshots of Cloud Hypervisor: its API's two calls, and its own configuration between them. */

import { link, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { z } from "zod";

import { MicroVmError, messageOf } from "../../errors.js";
import { storageError } from "../../host/storage.js";
import type { Launch, TakenSnapshot, VmmSnapshots } from "../local/vmm.js";
import { CloudHypervisorApi } from "./api.js";

/** `vm.snapshot` of the OpenAPI document. */
export const VmSnapshotConfig = z.strictObject({ destination_url: z.string() });

/** `vm.restore` of the OpenAPI document. */
export const RestoreConfig = z.strictObject({ source_url: z.string() });

/** The guest's whole memory is written, or read; undici gives an answer 300 s. */
const TIMEOUT_SECONDS = 290;

/** What `vm.snapshot` writes (docs/snapshot_restore.md of Cloud Hypervisor). */
const CONFIG = "config.json";
const OTHERS = ["state.json", "memory-ranges"];

/** What of the configuration that it writes is the host's, and may be changed in between. The rest stays as it is. */
const writtenConfig = z.looseObject({
  payload: z.looseObject({ kernel: z.string(), initramfs: z.string().nullish() }),
  disks: z.array(z.looseObject({ path: z.string() })).nullish(),
  net: z.tuple([z.looseObject({ tap: z.string(), num_queues: z.int() })]),
  serial: z.looseObject({ file: z.string() }),
  vsock: z.looseObject({ cid: z.int(), socket: z.string() }),
  landlock_rules: z.array(z.looseObject({ path: z.string(), access: z.string() })).nullish(),
});

type WrittenConfig = z.infer<typeof writtenConfig>;

export const snapshots: VmmSnapshots = {
  async take(controlSocket: string, folder: string): Promise<TakenSnapshot> {
    await put(controlSocket, "vm.snapshot", VmSnapshotConfig.parse({ destination_url: `file://${folder}` }));
    const { vsock, net } = await readConfig(folder);
    return { files: [CONFIG, ...OTHERS], vsockCid: vsock.cid, queuePairs: net[0].num_queues / 2 };
  },

  async restore(launch: Launch, from: string, scratch: string): Promise<void> {
    const config = restoredConfig(await readConfig(from), launch);
    try {
      await writeFile(join(scratch, CONFIG), JSON.stringify(config), { mode: 0o600 });
      // Not copied: the memory is as large as the guest's, and is only read.
      for (const name of OTHERS) await link(join(from, name), join(scratch, name));
    } catch (error) {
      throw storageError(error, `prepare ${scratch}`);
    }
    const source = RestoreConfig.parse({ source_url: `file://${scratch}` });
    await put(launch.paths.controlSocket, "vm.restore", source);
  },
};

/**
 * The configuration of a snapshot, at the places of another VM. Its devices stay as the guest knows them. Pure.
 *
 * @throws Error when the launch has no network.
 */
export function restoredConfig(config: WrittenConfig, { boot, paths, network }: Launch): WrittenConfig {
  if (network === undefined || !("tap" in network)) throw new Error("the restored VM has no tap");
  const { payload, disks, net, serial, vsock, landlock_rules: rules } = config;
  return {
    ...config,
    payload: {
      ...payload,
      kernel: paths.kernel,
      ...(paths.initramfs === undefined ? {} : { initramfs: paths.initramfs }),
    },
    ...(disks ? { disks: disks.map((disk, index) => ({ ...disk, ...placeOf(boot.disks[index]) })) } : {}),
    net: [{ ...net[0], tap: network.tap }],
    serial: { ...serial, file: paths.consoleLog },
    vsock: { ...vsock, socket: paths.vsock },
    ...(rules ? { landlock_rules: rules.map((rule) => ({ ...rule, path: paths.snapshots })) } : {}),
  };
}

function placeOf(disk: { readonly path: string } | undefined): { path: string } {
  if (disk === undefined) throw new Error("the snapshot has a disk that the VM has not");
  return { path: disk.path };
}

async function readConfig(folder: string): Promise<WrittenConfig> {
  const path = join(folder, CONFIG);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw storageError(error, `read ${path}`);
  }
  try {
    return writtenConfig.parse(JSON.parse(text));
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : messageOf(error);
    throw new MicroVmError(
      "vmm-failed",
      `${path}, which Cloud Hypervisor wrote, is not understood: ${why.replaceAll(/\s+/g, " ")}`,
      { cause: error },
    );
  }
}

async function put(controlSocket: string, name: string, body: unknown): Promise<void> {
  const api = await CloudHypervisorApi.connect(controlSocket);
  try {
    await api.http.send({
      method: "PUT",
      path: `/api/v1/${name}`,
      body,
      answer: z.undefined(),
      timeoutSeconds: TIMEOUT_SECONDS,
    });
  } finally {
    api.close();
  }
}
