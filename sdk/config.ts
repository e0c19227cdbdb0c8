/** The stack configuration as a source of inputs: `pulumi config set microvm:nfsServer 10.0.0.5`. */

import * as pulumi from "@pulumi/pulumi";

/** How each input that the configuration can give is read. A name would be the same for every VM, so it is not here. */
const kinds = {
  kernel: "string",
  initramfs: "string",
  rootfs: "string",
  entryPoint: "string",
  acceptStaleRoot: "boolean",
  useNfsRoot: "boolean",
  nfsServer: "string",
  nfsPort: "number",
  nfsPath: "string",
  nfsMountPort: "number or string",
  nfsOptions: "string",
  kernelArgs: "object",
  ip: "string",
  vcpus: "number",
  memoryMiB: "number",
  maxVcpus: "number",
  maxMemoryMiB: "number",
  statefulDiskMiB: "number",
  network: "object",
  guestAccess: "string",
  powerState: "string",
  readiness: "object",
  shutdownTimeoutSeconds: "number",
  backend: "object",
  configFile: "string",
  preflight: "string",
} as const;

/** Name of an input that the stack configuration can give. */
export type ConfigName = keyof typeof kinds;

/**
 * The inputs that the program leaves out and the stack configuration names, secrets as secrets. A value that does not
 * parse is passed on as it stands: check then says what was expected.
 */
export function configuredInputs(given: object): Record<string, pulumi.Input<unknown>> {
  const config = new pulumi.Config("microvm");
  const inputs: Record<string, pulumi.Input<unknown>> = {};
  for (const [name, kind] of Object.entries(kinds)) {
    if ((given as Record<string, unknown>)[name] !== undefined) continue;
    if (isSecret(`microvm:${name}`)) {
      inputs[name] = config.getSecret(name)?.apply((text) => parsed(text, kind));
      continue;
    }
    const text = config.get(name);
    if (text !== undefined) inputs[name] = parsed(text, kind);
  }
  return inputs;
}

/** Config has no public way to ask; without the runtime's own, a value counts as a secret rather than leak. */
function isSecret(key: string): boolean {
  const runtime = pulumi.runtime as object as { isConfigSecret?: (key: string) => boolean };
  return runtime.isConfigSecret?.(key) ?? true;
}

function parsed(text: string, kind: (typeof kinds)[ConfigName]): unknown {
  switch (kind) {
    case "string":
      return text;
    case "boolean":
      return text === "true" ? true : text === "false" ? false : text;
    case "number":
    case "number or string":
      return /^\d+$/.test(text) ? Number(text) : text;
    case "object":
      return parsedJson(text);
    default:
      return kind satisfies never;
  }
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
