/**
 * The bodies of Cloud Hypervisor's API that we use, under the names of its OpenAPI document (cloud-hypervisor.yaml in
 * vmm/src/api/openapi of its source). What we send is strict, what we read lets be what we do not know.
 */

import { z } from "zod";

const vcpus = z.int().min(1).max(255);
const bytes = z.int().min(0);

export const PayloadConfig = z.strictObject({
  kernel: z.string(),
  initramfs: z.string().optional(),
  cmdline: z.string(),
});

export const CpusConfig = z.strictObject({ boot_vcpus: vcpus, max_vcpus: vcpus });

export const MemoryConfig = z.strictObject({
  /** Bytes. */
  size: bytes,
  /** Bytes of address space that memory can be added in. */
  hotplug_size: bytes.optional(),
  /** Whether another process may be given it, as a vhost-user back end needs. */
  shared: z.literal(true).optional(),
});

export const DiskConfig = z.strictObject({
  id: z.string(),
  path: z.string(),
  readonly: z.boolean().optional(),
  num_queues: z.int().min(1),
  /** Given, so that a guest cannot have its image taken for another format. Known from v51 on, ignored before. */
  image_type: z.literal("Raw"),
});

export const NetConfig = z.strictObject({
  id: z.string(),
  tap: z.string().optional(),
  vhost_user: z.literal(true).optional(),
  /** Absolute path of the unix socket at which a vhost-user back end waits. */
  vhost_socket: z.string().optional(),
  mac: z.string(),
  /** Twice the number of queue pairs. */
  num_queues: z.int().min(2),
});

export const RngConfig = z.strictObject({ src: z.string() });

export const SerialConfig = z.strictObject({ mode: z.literal("File"), file: z.string() });

export const ConsoleConfig = z.strictObject({ mode: z.literal("Off") });

export const VsockConfig = z.strictObject({
  cid: z.int().min(3),
  /** Absolute path of the unix socket that leads to the guest. */
  socket: z.string(),
});

/** A place beside those of its devices that the VMM may reach. */
export const LandlockConfig = z.strictObject({ path: z.string(), access: z.literal("rw") });

export const VmConfig = z.strictObject({
  payload: PayloadConfig,
  cpus: CpusConfig,
  memory: MemoryConfig,
  disks: z.array(DiskConfig).optional(),
  net: z.array(NetConfig),
  rng: RngConfig,
  serial: SerialConfig,
  console: ConsoleConfig,
  vsock: VsockConfig,
  landlock_enable: z.boolean(),
  landlock_rules: z.array(LandlockConfig).optional(),
});

export const VmResize = z.strictObject({
  desired_vcpus: vcpus.optional(),
  /** Bytes. */
  desired_ram: bytes.optional(),
});

export const VmResizeDisk = z.strictObject({
  id: z.string(),
  /** Bytes. */
  desired_size: bytes,
});

export const VmmPingResponse = z.looseObject({
  /** Version of the API and the program: `54.0.0`. */
  version: z.string(),
  build_version: z.string().optional(),
  pid: z.int().optional(),
});

export const VmState = z.enum(["Created", "Running", "Shutdown", "Paused", "BreakPoint"]);

export const VmInfo = z.looseObject({
  state: VmState,
  config: z.looseObject({
    cpus: z.looseObject({ boot_vcpus: z.int(), max_vcpus: z.int() }).optional(),
    memory: z.looseObject({ size: z.int() }).optional(),
    vsock: z.looseObject({ socket: z.string() }).nullish(),
    serial: z.looseObject({ file: z.string().nullish() }).nullish(),
  }),
});

export type VmConfigBody = z.infer<typeof VmConfig>;
export type VmResizeBody = z.infer<typeof VmResize>;
export type VmInfoBody = z.infer<typeof VmInfo>;
