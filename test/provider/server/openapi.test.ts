import { load } from "js-yaml";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { allRoutes } from "../../../provider/server/all-routes.js";
import { openApiText } from "../../../provider/server/openapi.js";
import { valueAt } from "../../../provider/spec/validate.js";

const KEPT = join(__dirname, "../../../openapi.yaml");

/** A part of an OpenAPI document. */
type Part = Readonly<Record<string, unknown>>;

describe("the server's OpenAPI document", () => {
  let ours: Part;
  /** Arrakis' own, as api/server-api.yaml of its repository has it. */
  let theirs: Part;
  beforeAll(async () => {
    ours = load(await openApiText(allRoutes)) as Part;
    theirs = load(await readFile(join(__dirname, "arrakis-openapi.yaml"), "utf8")) as Part;
  });

  it("is kept in the package as the code has it (UPDATE_DOCS=1 writes it)", async () => {
    const text = await openApiText(allRoutes);
    if (process.env["UPDATE_DOCS"] === "1") await writeFile(KEPT, text);
    expect(await readFile(KEPT, "utf8")).toBe(text);
  });

  it("has every path, method and parameter of Arrakis'", () => {
    const found: string[] = [];
    for (const [path, methods] of Object.entries(at(theirs, "paths"))) {
      for (const [method, operation] of Object.entries(methods as Part)) {
        found.push(`${method} ${path}`);
        const mine = at(ours, "paths", path, method);
        expect(parametersOf(mine), `${method} ${path}`).toEqual(
          expect.arrayContaining(parametersOf(operation as Part)),
        );
        // The same statuses, and more.
        const statuses = Object.keys(at(operation as Part, "responses"));
        expect(Object.keys(at(mine, "responses")), `${method} ${path}`).toEqual(
          expect.arrayContaining(statuses),
        );
      }
    }
    expect(found).toHaveLength(11);
  });

  it("has every field of Arrakis' bodies, with its type, and asks for none that Arrakis does not ask for", () => {
    let fields = 0;
    const compare = (their: unknown, our: unknown, place: string, isRequest: boolean): void => {
      const [expected, found] = [resolved(theirs, their), resolved(ours, our)];
      if (expected["type"] !== undefined) expect(found["type"], place).toBe(expected["type"]);
      const required = (expected["required"] ?? []) as string[];
      // Arrakis refuses a PATCH without a status, too, though its document does not say so.
      const asked = [
        ...required,
        ...(place.startsWith("patch") && place.endsWith("request") ? ["status"] : []),
      ];
      if (isRequest) expect(found["required"] ?? [], place).toEqual(asked);
      for (const [name, field] of Object.entries((expected["properties"] ?? {}) as Part)) {
        fields += 1;
        compare(field, at(found, "properties", name), `${place}.${name}`, isRequest);
      }
      if (expected["items"] !== undefined) {
        compare(expected["items"], found["items"], `${place}[]`, isRequest);
      }
    };
    for (const [path, methods] of Object.entries(at(theirs, "paths"))) {
      for (const [method, operation] of Object.entries(methods as Part)) {
        const mine = at(ours, "paths", path, method);
        const place = `${method} ${path}`;
        const body = valueAt(operation, ["requestBody", ...JSON_SCHEMA]);
        if (body !== undefined) {
          compare(body, at(mine, "requestBody", ...JSON_SCHEMA), `${place} request`, true);
        }
        const answer = valueAt(operation, ["responses", "200", ...JSON_SCHEMA]);
        compare(answer, at(mine, "responses", "200", ...JSON_SCHEMA), `${place} answer`, false);
      }
    }
    expect(fields).toBeGreaterThan(40);
  });

  it("has the names of Arrakis' schemas, so that generated clients fit both", () => {
    const names = Object.keys(at(theirs, "components", "schemas"));
    // No operation of Arrakis' uses this one.
    const used = names.filter((name) => name !== "VMRequest");
    expect(Object.keys(at(ours, "components", "schemas"))).toEqual(expect.arrayContaining(used));
  });

  it("has the seed's NFS fields", () => {
    expect(at(ours, "components", "schemas", "StartVMRequest", "properties")).toMatchObject({
      useNfsRoot: { type: "boolean" },
      nfsServer: { type: "string" },
      nfsPort: { type: "integer" },
      nfsPath: { type: "string" },
    });
  });
});

const JSON_SCHEMA = ["content", "application/json", "schema"] as const;

function at(document: Part, ...path: readonly string[]): Part {
  const part = valueAt(document, path);
  expect(part, path.join(" ")).toBeTypeOf("object");
  return part as Part;
}

/** A schema, or the one that it refers to. */
function resolved(document: Part, schema: unknown): Part {
  const reference = valueAt(schema, ["$ref"]);
  if (typeof reference !== "string") return schema as Part;
  return at(document, ...reference.slice("#/".length).split("/"));
}

function parametersOf(operation: Part): unknown[] {
  return ((operation["parameters"] ?? []) as Part[]).map(({ name, in: place, required }) => ({
    name,
    place,
    required,
  }));
}
