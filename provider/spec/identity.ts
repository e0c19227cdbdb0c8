/** What a VM is called when the program does not say. */

import { createHash } from "node:crypto";
import type { InputName } from "./schema.js";

const LABEL_LIMIT = 63;

/**
 * The name of a MicroVm without `vmName`: the resource's name and 8 hex digits of SHA-256(URN), so that it is the
 * same in preview, plan and up, and two resources of one name under two parents differ.
 *
 * @param digest With a create-first replacement old and new exist side by side: 8 digits of the root's
 *   digest tell them apart.
 */
export function generatedName(urn: string, digest?: string): string {
  const suffix = [sha256(urn).slice(0, 8), ...(digest === undefined ? [] : [digest])].join("-");
  const resourceName = urn.slice(urn.lastIndexOf("::") + 2);
  const label = resourceName.replaceAll(/[^A-Za-z0-9]+/g, "-").replace(/^-/, "");
  return `${label.slice(0, LABEL_LIMIT - suffix.length - 1).replace(/-$/, "") || "vm"}-${suffix}`;
}

/** Inputs that say which files a root is and how they are mounted. */
export const rootInputs = [
  "useNfsRoot",
  "nfsServer",
  "nfsPort",
  "nfsPath",
  "nfsMountPort",
  "nfsOptions",
  "rootfs",
] as const satisfies readonly InputName[];

/** 8 hex digits that differ when any of the values that name a root differs. */
export function rootDigest(values: Readonly<Record<string, unknown>>): string {
  return sha256(JSON.stringify(rootInputs.map((name) => values[name] ?? null))).slice(0, 8);
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
