/** Inputs of the export resources: each held against its schema, then where the export is served. Pure. */

import { isIPv4 } from "node:net";

import { z } from "zod";

import { hostPlaceOf, subnetOf, tapNetwork, tapNetworkOf } from "../boot/tap-link.js";
import { shown } from "../errors.js";
import type { Values } from "../plan/fields.js";
import { generatedName } from "../spec/identity.js";
import { interfaceName, schemas } from "../spec/schema.js";
import type { Row } from "../spec/rows.js";
import { type Failure, UNKNOWN } from "../spec/validate.js";
import type { HeldBridge, ServingPlace } from "./record.js";

const port: Row = { schema: z.int().min(1).max(65_535), expected: "an integer from 1 to 65535" };
const path: Row = {
  schema: z
    .string()
    .startsWith("/")
    .max(4095)
    .regex(/^\P{Cc}*$/u),
  expected: "an absolute path without control characters",
};
const boolean: Row = { schema: z.boolean(), expected: "true or false" };

const common = {
  bind: {
    schema: z.string().refine((text) => text === "bridge" || isIPv4(text)),
    expected: 'an IPv4 address of this host, or "bridge" for that of the VMs\' bridge',
  },
  network: {
    schema: z.strictObject({
      bridge: interfaceName.optional(),
      subnet: z
        .string()
        .refine((text) => hostPlaceOf(text) !== undefined)
        .optional(),
    }),
    expected: 'an object { bridge?, subnet? } as the VMs have it, such as { subnet: "10.20.1.1/16" }',
  },
  port,
} as const;

/** Inputs of an AgentFs. */
export const agentFsRows = {
  ...common,
  agentId: {
    schema: z.string().regex(/^[A-Za-z0-9_-]{1,128}$/),
    expected: "letters, digits, hyphens and underscores, at most 128",
    shownName: "id",
  },
  databasePath: path,
  baseDirectory: path,
  key: {
    schema: z.string().regex(/^(?:[0-9a-fA-F]{2}){16,64}$/),
    expected: "a key in hex digits",
    mayBeSecret: true,
  },
  cipher: {
    schema: z.enum([
      "aegis128l",
      "aegis128x2",
      "aegis128x4",
      "aegis256",
      "aegis256x2",
      "aegis256x4",
      "aes128gcm",
      "aes256gcm",
    ]),
    expected: "a cipher of AgentFS, such as aegis256 or aes256gcm",
  },
  deleteDatabase: boolean,
  binary: path,
} as const satisfies Record<string, Row>;

const CLIENT = "an IPv4 address, or an IPv4 network such as 10.20.0.0/16";

/** Inputs of an NfsExport. */
export const nfsExportRows = {
  ...common,
  directory: {
    // It is the export's path too, and stands in quotes in the server's configuration.
    schema: schemas.nfsPath.regex(/^[^{}$]*$/),
    expected:
      "an absolute path of printable ASCII without blanks, quotes, commas, braces, backslashes, $, % and ..",
  },
  mountPort: port,
  readOnly: boolean,
  squash: { schema: z.enum(["none", "root", "all"]), expected: '"none", "root" or "all"' },
  allowedClients: {
    schema: z.array(z.string().refine(isClient)).min(1).max(64),
    expected: `a list of 1 to 64, each ${CLIENT}`,
  },
} as const satisfies Record<string, Row>;

function isClient(text: string): boolean {
  const [address = "", bits, ...rest] = text.split("/");
  if (!isIPv4(address) || rest.length > 0) return false;
  return bits === undefined || (/^\d{1,2}$/.test(bits) && Number(bits) <= 32);
}

/** Name of an export: the resource's name and 8 hex digits of its URN, the same in every preview. */
export function exportName(urn: string): string {
  return generatedName(urn);
}

/** The address that an export is bound to: loopback, one of this host, or that of the bridge. */
export function bindAddress({ bind = "127.0.0.1", network }: Values): unknown {
  if (bind !== "bridge") return bind;
  return network === UNKNOWN ? UNKNOWN : bridgeOf(network)?.hostAddress;
}

/** What a VM is told of an address that a server is bound to. */
export function serverOf(address: unknown): unknown {
  return address === "0.0.0.0" ? "127.0.0.1" : address;
}

/** The bridge that a `network` input means. */
export function bridgeOf(network: unknown): HeldBridge | undefined {
  const place = tapNetworkOf(network ?? {});
  if (place === undefined) return undefined;
  const { bridge, hostAddress, prefixLength } = place;
  return { bridge, hostAddress, prefixLength };
}

/** Who may mount a directory where nothing is said: this host, and on a bridge its network. */
export function defaultClients(bind: unknown, network: unknown): unknown[] {
  if (bind === "bridge") {
    const bridge = bridgeOf(network);
    return ["127.0.0.1", ...(bridge === undefined ? [] : [subnetOf(bridge)])];
  }
  return bind === undefined || bind === "127.0.0.1" || bind === "0.0.0.0"
    ? ["127.0.0.1"]
    : ["127.0.0.1", bind];
}

/** Rules over several inputs that both resources share. */
export function placeFailures({ bind, network }: Values): Failure[] {
  if (network === undefined || bind === "bridge" || bind === UNKNOWN) return [];
  const text = `expected bind: "bridge" beside it, got ${shown(bind)}: a network is where the bridge's address is (by default ${tapNetwork.subnet})`;
  return [{ input: "network", text }];
}

/** The place of a record, from checked inputs. */
export function servingPlace(inputs: Values): ServingPlace {
  return {
    address: String(bindAddress(inputs)),
    port: Number(inputs["nfsPort"]),
    mountPort: Number(inputs["nfsMountPort"]),
    path: String(inputs["nfsPath"]),
  };
}
