/**
 * The bodies of Arrakis' REST API, one schema each, shared by our server and our client. Names and shapes are those of Arrakis' OpenAPI
 * document and of the seed's NFS fields; what this project adds is marked, optional, and ignored by others' clients.
 *
 * Requests are strict: a field that nobody knows is an error, never ignored. Answers are open, and what an older server leaves out is optional.
 */

import { z } from "zod";

/** A port of the host that leads to a port of the guest; ports are texts in this API. */
export const portForward = z.object({
  hostPort: z.string().meta({ description: "Port on the host" }),
  guestPort: z.string().meta({ description: "Port in the guest" }),
  description: z.string().optional().meta({ description: "What answers at this port" }),
});

/** POST /v1/vms. Each field is optional: what is absent comes from the server's config.yaml. */
export const startVmRequest = z.strictObject({
  vmName: z.string().optional().meta({ description: "Name of the VM: one DNS label" }),
  kernel: z.string().optional().meta({ description: "Path of the kernel image on the server's host" }),
  initramfs: z.string().optional().meta({ description: "Path of the initramfs on the server's host" }),
  rootfs: z.string().optional().meta({
    description: "Path of the root file system's image on the server's host; ignored with useNfsRoot",
  }),
  entryPoint: z.string().optional().meta({ description: "What the guest starts when it is up" }),
  snapshotId: z.string().optional().meta({ description: "Snapshot that the guest is restored from" }),
  useNfsRoot: z.boolean().optional().meta({ description: "Whether the root is mounted over NFS" }),
  nfsServer: z.string().optional().meta({ description: "NFS server; required with useNfsRoot" }),
  nfsPort: z.int().optional().meta({ description: "Port of the NFS server; required with useNfsRoot" }),
  nfsPath: z.string().optional().meta({ description: "Path of the export; / unless given" }),
  // From here on: this project's own, see `features` of health.
  nfsMountPort: z
    .union([z.int(), z.literal("rpcbind")], 'a port or "rpcbind"')
    .optional()
    .meta({ description: "Port of mountd, or rpcbind; nfsPort unless given" }),
  nfsOptions: z.string().optional().meta({ description: "More NFS mount options" }),
  kernelArgs: z.array(z.string()).optional().meta({ description: "More words for the kernel command line" }),
  guestAccess: z.enum(["internet", "nfs-only"]).optional().meta({ description: "What the guest can reach" }),
  acceptStaleRoot: z.boolean().optional().meta({
    description: "With snapshotId: whether the guest may go on writing over what happened on its root since",
  }),
});

/** One VM, in the answers to POST, GET and the list. */
export const vm = z.object({
  vmName: z.string().meta({ description: "Name of the VM" }),
  status: z.string().meta({
    description:
      "RUNNING, PAUSED or STOPPED; of this project's own CREATING, REMOVING, DAMAGED (it cannot be started again as it is) and UNREACHABLE (its hypervisor does not answer, or its record cannot be read)",
  }),
  ip: z.string().optional().meta({ description: "The guest's address in CIDR form" }),
  tapDeviceName: z.string().optional(),
  portForwards: z.array(portForward).nullish(),
  // This project's own.
  instance: z.string().optional().meta({ description: "16 hex digits, new with every create" }),
  rootEvidence: z
    .enum(["proved", "restored", "stale", "none"])
    .optional()
    .meta({ description: "Whether the guest has shown that it runs on the named root" }),
  cmdline: z.string().optional().meta({ description: "The kernel command line that was booted" }),
  root: z
    .string()
    .optional()
    .meta({ description: "What / of the guest is: nfs SERVER:PORT:PATH, or disk FILE" }),
});

/** POST /v1/vms?dryRun=true (this project's own): what would be booted. */
export const dryRunResponse = z.object({
  vmName: z.string(),
  cmdline: z.string().meta({ description: "The kernel command line" }),
  disks: z
    .array(z.object({ path: z.string(), readonly: z.literal(true).optional(), numQueues: z.int() }))
    .meta({ description: "The guest's block devices, in its order" }),
});

/** POST /v1/vms: the VM, or with dryRun what is known of it before. */
export const startVmResponse = vm.partial().extend({
  vmName: vm.shape.vmName,
  disks: dryRunResponse.shape.disks.optional(),
});

/** GET /v1/vms. Arrakis' Go server answers null for no VM. */
export const vmList = z.object({ vms: z.array(vm).nullish() });

/** PATCH /v1/vms/{name}. */
export const updateVmRequest = z.strictObject({
  status: z.enum(["stopped", "paused", "resume"]).meta({ description: "What to do with the VM" }),
});

/** PATCH and DELETE of one VM. */
export const vmResponse = z.object({ success: z.boolean().optional(), message: z.string().optional() });

/** DELETE /v1/vms. */
export const destroyAllResponse = z.object({ success: z.boolean().optional() });

/** POST /v1/vms/{name}/snapshots. */
export const snapshotRequest = z.strictObject({
  snapshotId: z.string().optional().meta({ description: "Name of the snapshot; made up when absent" }),
});
export const snapshotResponse = z.object({ snapshotId: z.string() });

/** POST /v1/vms/{name}/cmd. */
export const commandRequest = z.strictObject({
  cmd: z.string().meta({ description: "Command for the guest's shell" }),
  blocking: z.boolean().optional().meta({ description: "Whether to wait for its end; true unless given" }),
  // This project's own.
  timeoutSeconds: z
    .int()
    .min(1)
    .max(3600)
    .optional()
    .meta({ description: "How long to wait for its end; 30 unless given" }),
});
export const commandResponse = z.object({ output: z.string().optional(), error: z.string().optional() });

/** POST /v1/vms/{name}/files. */
export const uploadRequest = z.strictObject({
  files: z.array(
    z.strictObject({
      path: z.string().meta({ description: "Where to save the file in the guest" }),
      content: z.string().meta({ description: "Content of the file" }),
    }),
  ),
});
export const uploadResponse = z.object({ error: z.string().optional() });

/** GET /v1/vms/{name}/files?paths=A,B. */
export const downloadResponse = z.object({
  files: z
    .array(z.object({ path: z.string(), content: z.string().optional(), error: z.string().optional() }))
    .nullish(),
});

/** GET /v1/vms/{name}/console (this project's own). */
export const consoleResponse = z.object({
  lines: z
    .array(z.string())
    .meta({ description: "The last lines, the oldest first, without control characters" }),
});

/** What a server may be able to do beyond Arrakis' own API. */
export const features = [
  "useNfsRoot",
  "nfsMountPort",
  "nfsOptions",
  "kernelArgs",
  "guestAccess",
  "entryPoint",
  "snapshots",
  "dryRun",
  "console",
] as const;

/** GET /v1/health. */
export const health = z.object({
  status: z.string(),
  timestamp: z.string().optional(),
  // This project's own.
  server: z.string().optional().meta({ description: "Name and version of the server" }),
  features: z.array(z.string()).optional().meta({ description: "What it can do beyond Arrakis' API" }),
});

/** Every answer that is not 2xx. */
export const errorResponse = z.object({
  error: z.object({
    message: z.string().meta({ description: "What went wrong" }),
    code: z.string().optional().meta({ description: "One of this project's error codes" }),
  }),
});

export type StartVmRequest = z.output<typeof startVmRequest>;
export type Vm = z.output<typeof vm>;
export type DryRun = z.output<typeof dryRunResponse>;
