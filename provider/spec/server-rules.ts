/** Rules of a VM on a server. What only the server knows, it says itself. */

import { isIPv4 } from "node:net";
import { shown } from "../errors.js";
import { fields } from "../plan/fields.js";
import type { KnownValues } from "./rules.js";
import type { InputName, InputValues } from "./schema.js";
import type { Failure } from "./validate.js";

/** What decides instead of an input that Arrakis' API has not, where that is not simply the server. */
const reasons: { readonly [Name in InputName]?: string } = {
  vcpus: "the server gives each VM a share of its CPUs",
  memoryMiB: "the server's guest_mem_percentage decides it",
  statefulDiskMiB: "the server's stateful_size_in_mb decides it",
  portForwards: "the server's port_forwards decide it",
  network: "the server's bridge decides it",
  configFile: "the server has its own",
};

/** Every rule over the inputs of a VM on a server. */
export function serverVmFailures({ values, unknown }: KnownValues): Failure[] {
  return [...unsupportedFailures(values), ...readinessFailures(values), ...nfsFailures(values, unknown)];
}

function unsupportedFailures(values: InputValues): Failure[] {
  return (Object.keys(values) as InputName[]).flatMap((input) => {
    if (fields[input].change.arrakis !== "unsupported" || values[input] === undefined) return [];
    const reason = reasons[input] ?? "the server decides it";
    return [
      {
        input,
        code: "not-supported" as const,
        text: `not supported: Arrakis' API has no such field, ${reason}; leave it out`,
      },
    ];
  });
}

function readinessFailures({ readiness }: InputValues): Failure[] {
  if (readiness?.console === undefined) return [];
  const text = "not supported: the console of a guest on a server cannot be read from here; leave it out";
  return [{ input: "readiness.console", code: "not-supported", text }];
}

function nfsFailures(
  { useNfsRoot, nfsServer, nfsPort }: InputValues,
  unknown: ReadonlySet<InputName>,
): Failure[] {
  if (useNfsRoot !== true) return [];
  const missing = Object.entries({ nfsServer, nfsPort }).flatMap(([input, value]) =>
    value === undefined && !unknown.has(input as InputName)
      ? [{ input, text: `NFS server ${wordOf(input)} is required when useNfsRoot is true, got nothing` }]
      : [],
  );
  if (nfsServer === undefined || !isIPv4(nfsServer)) return missing;
  const first = Number(nfsServer.split(".")[0]);
  if (first < 224 && (first !== 0 || nfsServer === "0.0.0.0")) return missing;
  const text = `expected the address of one host, got ${shown(nfsServer)}`;
  return [...missing, { input: "nfsServer", text }];
}

function wordOf(input: string): string {
  return input === "nfsPort" ? "port" : "address";
}
