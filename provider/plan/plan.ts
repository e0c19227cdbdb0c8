/** What differs between two specs, per field, and what that means: replace, update or nothing. Pure. */

import { posix } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { BackendOptions, CloudHypervisorBackend } from "../backends/backend.js";
import { MEMORY_BLOCK_MIB, type PortForward } from "../boot/boot.js";
import { isBehind, linkOf, takeSamePort } from "../boot/network.js";
import { noticeText } from "../notices.js";
import type { InputName } from "../spec/schema.js";
import { type Failure, UNKNOWN, valueAt } from "../spec/validate.js";
import { derivedFields, fields, isSame, type FieldName, type Policy, type Values } from "./fields.js";

/** One field that differs. */
export interface Change {
  readonly field: FieldName;
  readonly policy: Exclude<Policy, "none" | "unsupported">;
}

/** What an up would do to an existing VM. */
export interface Plan {
  readonly action: "nothing" | "update" | "replace";
  readonly changes: readonly Change[];
  /** Changes that cannot be made at all; each fails the preview. */
  readonly failures: readonly Failure[];
  /** What a person should read before saying yes. */
  readonly notices: readonly string[];
}

/**
 * Compares what is (outputs, or checked inputs of the last up) with what is to be (checked inputs of this one).
 * An unknown new value counts as a change, since it may be one.
 */
export function plan(olds: Values, news: Values): Plan {
  const changes: Change[] = [];
  const failures: Failure[] = [];
  const backend = backendTypeOf(news);
  for (const [field, { row, name }] of rows()) {
    if (isSame(name, row, olds, news)) continue;
    const policy = row.change[backend];
    if (policy === "none" || policy === "unsupported") continue;
    // A disk that has gone with its VM is made anew, at any size.
    if (policy === "grow" && news["observed"] !== "gone" && isSmaller(news[field], olds[field])) {
      failures.push({
        input: field,
        text: `expected at least ${String(olds[field])} MiB, which the disk has, got ${String(news[field])}: a disk cannot shrink`,
      });
      continue;
    }
    changes.push({ field: name, policy: effective(policy, name, olds, news) });
  }
  const repair = repairOf(news);
  if (repair !== undefined) changes.push({ field: "observed", policy: repair });
  const action = actionOf(changes);
  return { action, changes, failures, notices: noticesOf(action, changes, olds, news) };
}

/** What a change is in this case, of a policy that depends on the values. */
function effective(policy: Change["policy"], field: FieldName, olds: Values, news: Values): Change["policy"] {
  // A disk that was not there cannot grow: its device would be a new one.
  if (policy === "grow" && !olds[field]) return "replace";
  if (policy === "resize" && !hasRoom(field, olds, news)) return "replace";
  // passt takes its forwards when it starts, and a guest cannot change over to another one.
  if (field === "portForwards" && valueAt(news["network"], ["passt"]) === true) return "replace";
  if (field === "backend" && isSameServer(olds[field], news[field])) return "settings";
  return policy;
}

/** Whether only how the server is reached has changed, not which one it is. */
function isSameServer(before: unknown, after: unknown): boolean {
  const url = valueAt(after, ["url"]);
  return typeof url === "string" && url !== UNKNOWN && url === valueAt(before, ["url"]);
}

/** Whether the running VM was made with room for the new value. */
function hasRoom(field: FieldName, olds: Values, news: Values): boolean {
  const most = olds[field === "vcpus" ? "maxVcpus" : "maxMemoryMiB"];
  const [before, after] = [olds[field] ?? fields[field as InputName].absent, news[field]];
  if (typeof most !== "number" || typeof before !== "number" || typeof after !== "number") return false;
  if (field === "memoryMiB" && (after - before) % MEMORY_BLOCK_MIB !== 0) return false;
  return before < after && after <= most;
}

function backendTypeOf(values: Values): BackendOptions["type"] {
  const type = valueAt(values["backend"], ["type"]);
  return type === "cloud-hypervisor" || type === "arrakis" ? type : "qemu";
}

function rows(): [string, { row: (typeof fields)[keyof typeof fields]; name: FieldName }][] {
  return Object.entries({ ...fields, ...derivedFields }).map(([name, row]) => [
    name,
    { row, name: name as FieldName },
  ]);
}

function isSmaller(next: unknown, previous: unknown): boolean {
  return typeof next === "number" && typeof previous === "number" && next < previous;
}

/** A VM that is not in the state asked for is started again; one that is no longer there is made again. */
function repairOf(news: Values): "update" | "replace" | undefined {
  switch (news["observed"]) {
    case "gone":
    case "damaged":
      return "replace";
    case "stale":
      // A guest that is to be off loses nothing: it mounts its root anew when it is started.
      return news["powerState"] === "stopped" ? "update" : "replace";
    case "unproved":
      return "update";
    case "running":
    case "paused":
    case "stopped":
      return news["observed"] === news["powerState"] ? undefined : "update";
    default:
      return undefined;
  }
}

function actionOf(changes: readonly Change[]): Plan["action"] {
  if (changes.some((change) => change.policy === "replace")) return "replace";
  return changes.length === 0 ? "nothing" : "update";
}

function noticesOf(action: Plan["action"], changes: readonly Change[], olds: Values, news: Values): string[] {
  const vm = String(olds["vmName"]);
  const disk = olds["statefulDiskMiB"];
  const notices: string[] = [];
  if (action === "replace" && typeof disk === "number" && disk > 0 && news["observed"] !== "gone") {
    notices.push(noticeText("disk-dropped", { vm, size: disk }));
  }
  if (action === "update" && changes.some((change) => change.policy === "grow")) {
    notices.push(noticeText("disk-grows", { vm }));
  }
  return notices;
}

/** Whether two roots are the same files. One that is not known yet is no other's: check runs again when it is. */
export function sharesRoot(one: Values, other: Values): boolean {
  return isDeepStrictEqual(rootOf(one), rootOf(other));
}

function rootOf(values: Values): unknown {
  if (values["useNfsRoot"] !== true) return pathOf(values["rootfs"]);
  const address = values["nfsServerAddress"] ?? values["nfsServer"];
  const link = linkOf(values);
  return [
    typeof address === "string" && link !== undefined && isBehind(address, link) ? "this host" : address,
    values["nfsPort"],
    pathOf(values["nfsPath"]),
  ];
}

function pathOf(path: unknown): unknown {
  return typeof path === "string" ? posix.join(path, "/") : path;
}

/**
 * Why old and new cannot exist side by side, as a create-first replacement needs: a shared root is written by two
 * guests at once, and a name or a host port belongs to one.
 */
export function createFirstFailures(olds: Values, news: Values): Failure[] {
  // The repair of a VM that is no longer there: nothing stands beside the new one.
  if (news["observed"] === "gone") return [];
  const failures: Failure[] = [];
  const refuse = (input: string, what: string) =>
    failures.push({
      input,
      text: `old and new VM cannot exist side by side: ${what}; leave deleteBeforeReplace at its default, or change it`,
    });
  if (olds["vmName"] === news["vmName"]) refuse("vmName", `both are called ${String(news["vmName"])}`);
  if (sharesRoot(olds, news))
    refuse(news["useNfsRoot"] === true ? "nfsPath" : "rootfs", "both have one root");
  const [oldLink, newLink] = [linkOf(olds), linkOf(news)];
  if (oldLink?.kind === "tap" && newLink?.kind === "tap") {
    // Of one name follows one address: said already.
    if (olds["vmName"] !== news["vmName"] && oldLink.guestAddress === newLink.guestAddress) {
      refuse("ip", `both have the address ${newLink.guestAddress}`);
    }
    if (oldLink.tap !== undefined && oldLink.tap === newLink.tap) {
      refuse("network", `both are on the tap ${newLink.tap}`);
    }
    const socket = apiSocketOf(news);
    if (socket !== undefined && socket === apiSocketOf(olds))
      refuse("backend", `both are in the VMM at ${socket}`);
  }
  const taken = forwardsOf(olds);
  for (const forward of forwardsOf(news)) {
    if (!taken.some((other) => takeSamePort(forward, other))) continue;
    refuse("portForwards", `both use host port ${forward.hostPort}/${forward.protocol}`);
  }
  return failures;
}

function apiSocketOf({ backend }: Values): string | undefined {
  const socket = (backend as CloudHypervisorBackend | undefined)?.apiSocket;
  return typeof socket === "string" ? socket : undefined;
}

function forwardsOf(values: Values): readonly PortForward[] {
  const forwards = values["portForwards"];
  return Array.isArray(forwards) ? forwards : [];
}
