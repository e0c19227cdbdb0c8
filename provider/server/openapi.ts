/**
 * The server's OpenAPI document (3.0.3, which client generators take best), made from the table of routes and the schemas of their
 * bodies. Schemas have the names that Arrakis' document gives them, so that generated clients fit both.
 */

import { z } from "zod";
import { version } from "../version.js";
import type { Route } from "./route.js";
import * as wire from "./wire.js";

/** Schemas with a name of their own; others stand where they are used. */
const named: ReadonlyMap<z.ZodType, string> = new Map<z.ZodType, string>([
  [wire.errorResponse, "ErrorResponse"],
  [wire.startVmRequest, "StartVMRequest"],
  [wire.startVmResponse, "StartVMResponse"],
  [wire.vmResponse, "VMResponse"],
  [wire.destroyAllResponse, "DestroyAllVMsResponse"],
  [wire.vmList, "ListAllVMsResponse"],
  [wire.vm, "ListVMResponse"],
  [wire.commandRequest, "VmCommandRequest"],
  [wire.commandResponse, "VmCommandResponse"],
  [wire.uploadRequest, "VmFileUploadRequest"],
  [wire.uploadResponse, "VmFileUploadResponse"],
  [wire.downloadResponse, "VmFileDownloadResponse"],
  [wire.portForward, "PortForward"],
  [wire.snapshotResponse, "VMSnapshotResponse"],
]);

/** A part of the document. */
type Json = Readonly<Record<string, unknown>>;

/** The document, of those routes that are the API: what has a version in its path. */
export function openApiDocument(routes: readonly Route[]): Json {
  const schemas = new Schemas();
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    if (!route.path.startsWith("/v1/")) continue;
    paths[route.path] = { ...paths[route.path], [route.method.toLowerCase()]: operation(route, schemas) };
  }
  return {
    openapi: "3.0.3",
    info: {
      title: "VM Management API",
      description: "API for managing VMs via REST endpoints: Arrakis' own, with NFS roots.",
      version,
    },
    servers: [
      {
        url: "http://{host}:{port}",
        variables: { host: { default: "localhost" }, port: { default: "7000" } },
      },
    ],
    // Without a token_file, no token is asked for.
    security: [{ bearer: [] }, {}],
    paths,
    components: {
      securitySchemes: { bearer: { type: "http", scheme: "bearer" } },
      schemas: schemas.components(),
    },
  };
}

/** The document as text. */
export async function openApiText(routes: readonly Route[]): Promise<string> {
  const { dump } = await import("js-yaml");
  // What is undefined is left out.
  return dump(openApiDocument(routes), {
    noRefs: true,
    skipInvalid: true,
    quoteStyle: "double",
    lineWidth: -1,
  });
}

/** JSON schemas of zod's, which name each other. */
class Schemas {
  readonly #made: Readonly<Record<string, z.core.JSONSchema.BaseSchema>>;

  constructor() {
    const registry = z.registry<{ id: string }>();
    for (const [schema, id] of named) registry.add(schema, { id });
    this.#made = z.toJSONSchema(registry, { ...settings, uri: refTo }).schemas;
  }

  /** What stands where a schema is used. */
  of(schema: z.ZodType): Json {
    const id = named.get(schema);
    if (id !== undefined) return { $ref: refTo(id) };
    return z.toJSONSchema(schema, settings) as Json;
  }

  components(): Json {
    return Object.fromEntries(
      Object.entries(this.#made).map(([id, schema]) => [id, { ...schema, $id: undefined }]),
    );
  }
}

function refTo(id: string): string {
  return `#/components/schemas/${id}`;
}

const settings = {
  target: "openapi-3.0",
  // A server may say more than its clients know.
  io: "input",
  override({ jsonSchema }: { jsonSchema: z.core.JSONSchema.BaseSchema }) {
    // JavaScript's own bounds of an integer say nothing.
    if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
    if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
  },
} as const;

function operation(route: Route, schemas: Schemas): Json {
  const { summary, path, query, body, response, fails = [], open } = route;
  const hasName = path.includes("{name}");
  const parameters = [...(hasName ? [nameParameter] : []), ...queryParameters(query, schemas)];
  const statuses = new Set([
    ...(open === true ? [] : [401]),
    403,
    ...(query === undefined && body === undefined ? [] : [400]),
    ...(hasName ? [404] : []),
    ...(body === undefined ? [] : [413, 415]),
    ...fails,
    500,
  ]);
  const failures = [...statuses]
    .toSorted((one, other) => one - other)
    .map((status) => [
      String(status),
      { description: reasons[status], content: jsonOf(schemas.of(wire.errorResponse)) },
    ]);
  return {
    summary,
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(body === undefined ? {} : { requestBody: requestBody(body, schemas) }),
    responses: {
      "200": {
        description: "Done",
        ...(response === undefined ? {} : { content: jsonOf(schemas.of(response)) }),
      },
      ...Object.fromEntries(failures),
    },
  };
}

const nameParameter = {
  name: "name",
  in: "path",
  required: true,
  description: "Name of the VM",
  schema: { type: "string" },
} as const;

/** What each status means here. */
const reasons: Readonly<Record<number, string>> = {
  400: "The request says something that cannot be used, or is to be put right first",
  401: "No token, or another one than the server's",
  403: "The Host header names another server, or a page of another site asks",
  404: "There is no such VM or snapshot",
  409: "The name is in use, or the VM is not in a state for this",
  413: "The body is too large",
  415: "The body is no JSON",
  500: "The server failed",
  502: "The guest's command server does not answer, or refuses",
  503: "The host cannot do this now",
};

function jsonOf(schema: Json): Json {
  return { "application/json": { schema } };
}

function requestBody(body: z.ZodType, schemas: Schemas): Json {
  const isOptional = body instanceof z.ZodOptional;
  const schema = isOptional ? (body.unwrap() as z.ZodType) : body;
  return { required: !isOptional, content: jsonOf(schemas.of(schema)) };
}

function queryParameters(query: z.ZodType | undefined, schemas: Schemas): Json[] {
  if (!(query instanceof z.ZodObject)) return [];
  return Object.entries(query.shape).map(([name, field]) => {
    const schema = field as z.ZodType;
    const { description, ...json } = schemas.of(schema);
    return { name, in: "query", required: !(schema instanceof z.ZodOptional), description, schema: json };
  });
}
