/** Inputs of a MicroVmSnapshot: validated, and which of them take another snapshot. Pure. */

import { z } from "zod";
import type { ArrakisBackend } from "../backends/backend.js";
import { isVmName } from "../host/paths.js";
import type { Values } from "../plan/fields.js";
import { isOnServer } from "./server-inputs.js";
import { type Row, validateRows } from "./rows.js";
import { UNKNOWN, type Failure, valueAt } from "./validate.js";

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

const rows = {
  vmId: { schema: vmId, expected: "the id of a MicroVm, <vmName>/<16 hex digits>", required: true },
  stateDirectory: {
    schema: z.string().startsWith("/"),
    expected: "the absolute path of the VM's state directory",
  },
  backend: {
    schema: z.looseObject({ type: z.literal("arrakis"), url: z.string() }),
    expected: "the back end of a VM on a server",
  },
  trigger: { schema: z.string().max(1024), expected: "a text of at most 1024 characters" },
} as const satisfies Record<string, Row>;

/**
 * Checks the inputs. A snapshot that exists stays the one of its VM, whatever the program names by now, unless it is taken anew.
 *
 * @param olds Checked inputs of the last up; `{}` when there was none, or when a replacement is named.
 */
export function snapshotInputs(
  olds: Values,
  news: Values,
): { readonly inputs: Record<string, unknown>; readonly failures: readonly Failure[] } {
  // Of a VM on a server nothing is on this host.
  const stateDirectory = { ...rows.stateDirectory, required: !isOnServer(news) };
  const { values, failures } = validateRows({ ...rows, stateDirectory }, news);
  const { backend, ...others } = values;
  // Whether there is one shows in the up.
  const isKnown = backend !== undefined && news["backend"] !== UNKNOWN;
  const inputs = { owner: news["owner"], ...others, ...(isKnown ? { backend } : {}) };
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
