/** Inputs of a MicroVmSnapshot: validated, and which of them take another snapshot. Pure. */

import { z } from "zod";
import type { ArrakisBackend } from "../backends/backend.js";
import { shown } from "../errors.js";
import { isVmName } from "../host/paths.js";
import { isOnServer } from "./server-inputs.js";
import { holdsUnknown, UNKNOWN, type Failure, valueAt } from "./validate.js";

type Values = Readonly<Record<string, unknown>>;

/** The inputs of a snapshot after check. */
export interface CheckedSnapshot {
  /** Pulumi id of the VM that it is (or was) taken of, `<vmName>/<instance>`. */
  readonly vmId: string;
  /** Absolute path of the state directory that holds VM and snapshot; absent on a server. */
  readonly stateDirectory?: string;
  /** The server that has the VM and keeps the snapshot; absent on this host. */
  readonly backend?: ArrakisBackend;
  readonly trigger?: string;
}

const vmId = z
  .string()
  .refine((text) => isVmName(text.split("/")[0] ?? "") && /^[^/]+\/[0-9a-f]{16}$/.test(text));

const schemas = {
  vmId: { schema: vmId, expected: "the id of a MicroVm, <vmName>/<16 hex digits>", required: true },
  stateDirectory: {
    schema: z.string().startsWith("/"),
    expected: "the absolute path of the VM's state directory",
    required: true,
  },
  backend: {
    schema: z.looseObject({ type: z.literal("arrakis"), url: z.string() }),
    expected: "the back end of a VM on a server",
    required: false,
  },
  trigger: { schema: z.string().max(1024), expected: "a text of at most 1024 characters", required: false },
} as const;

/**
 * Checks the inputs. A snapshot that exists stays the one of its VM, whatever the program names by now, unless it is taken anew.
 *
 * @param olds Checked inputs of the last up; `{}` when there was none, or when a replacement is named.
 */
export function snapshotInputs(
  olds: Values,
  news: Values,
): { readonly inputs: Record<string, unknown>; readonly failures: readonly Failure[] } {
  const failures: Failure[] = [];
  const inputs: Record<string, unknown> = { owner: news["owner"] };
  const secret = news["secretInputs"];
  const secrets = new Set(Array.isArray(secret) ? secret : []);
  for (const [input, { schema, expected, required }] of Object.entries(schemas)) {
    const value = news[input];
    if (value === undefined || value === null) {
      // Of a VM on a server nothing is on this host.
      if (required && !(input === "stateDirectory" && isOnServer(news)))
        failures.push({ input, text: `expected ${expected}, got nothing` });
    } else if (secrets.has(input)) {
      failures.push({ input, text: "a secret cannot be used here: Pulumi's state shows it in clear" });
    } else if (input === "backend" && value === UNKNOWN) {
      continue; // whether there is one shows in the up
    } else if (holdsUnknown(value)) {
      inputs[input] = UNKNOWN;
    } else if (schema.safeParse(value).success) {
      inputs[input] = value;
    } else {
      failures.push({ input, text: `expected ${expected}, got ${shown(value)}` });
    }
  }
  const exists = Object.keys(olds).length > 0;
  if (!exists || isSnapshotChange(olds, inputs)) return { inputs, failures };
  return {
    inputs: { ...inputs, ...placeOf(olds, inputs) },
    failures,
  };
}

/** Where the snapshot was taken; of its server the token may be another by now. */
function placeOf(olds: Values, news: Values): Values {
  const { stateDirectory, backend: before } = olds;
  const isSameServer = valueAt(before, ["url"]) === valueAt(news["backend"], ["url"]);
  const backend = isSameServer ? news["backend"] : before;
  return { vmId: olds["vmId"], stateDirectory, ...(backend === undefined ? {} : { backend }) };
}

/** Whether another snapshot is asked for. */
export function isSnapshotChange(olds: Values, news: Values): boolean {
  return (olds["trigger"] ?? undefined) !== (news["trigger"] ?? undefined);
}
