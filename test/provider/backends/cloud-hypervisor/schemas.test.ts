import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

import { load } from "js-yaml";
import { describe, expect, it } from "vitest";
import { z } from "zod";

import * as schemas from "../../../../provider/backends/cloud-hypervisor/schemas.js";

/** The part of JSON Schema that is compared; OpenAPI 3.0 has it too. */
interface Shape {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly enum?: readonly string[];
  readonly const?: string;
  readonly minimum?: number;
  readonly properties?: Readonly<Record<string, Shape>>;
  readonly required?: readonly string[];
  readonly items?: Shape;
  readonly anyOf?: readonly Shape[];
}

interface Document {
  readonly paths: Readonly<Record<string, object>>;
  readonly components: { readonly schemas: Readonly<Record<string, Shape>> };
}

const document = load(readFileSync(join(__dirname, "openapi.yaml"), "utf8")) as Document;
const whole = resolve(__dirname, "../../../../../shared/reference/cloud-hypervisor-openapi.yaml");

const ours = Object.entries<z.ZodType>(schemas);

function resolved(shape: Shape, { components }: Document): Shape {
  const name = shape.$ref?.split("/").at(-1);
  if (name === undefined) return shape;
  const found = components.schemas[name];
  if (found === undefined) throw new Error(`the document has no ${name}`);
  return found;
}

/** The program writes null for what is absent in an answer; the document does not tell. */
function withoutNull(shape: Shape): Shape {
  const [only, ...more] = (shape.anyOf ?? []).filter(({ type }) => type !== "null");
  if (only !== undefined && more.length === 0) return only;
  const types = [shape.type ?? []].flat().filter((type) => type !== "null");
  return types.length === 1 ? { ...shape, type: types[0] } : shape;
}

/** What of ours the document does not have, or has otherwise, as paths. */
function differences(nullable: Shape, other: Shape, path: string, within: Document): string[] {
  const mine = path.startsWith("read") ? withoutNull(nullable) : nullable;
  const theirs = resolved(other, within);
  if (mine.properties !== undefined) {
    const own = mine.properties;
    const missing = (theirs.required ?? [])
      .filter((name) => !(mine.required ?? []).includes(name))
      // What we do not read of an answer may be required all the same.
      .filter((name) => Object.hasOwn(own, name) || path.startsWith("sent"));
    return [
      ...missing.map((name) => `${path}.${name} is required`),
      ...Object.entries(own).flatMap(([name, property]) => {
        const there = theirs.properties?.[name];
        return there === undefined
          ? [`${path}.${name} is unknown`]
          : differences(property, there, `${path}.${name}`, within);
      }),
    ];
  }
  if (mine.items !== undefined && theirs.items !== undefined) {
    return differences(mine.items, theirs.items, `${path}[]`, within);
  }
  const values = mine.const === undefined ? mine.enum : [mine.const];
  const strange =
    theirs.enum === undefined ? [] : (values ?? []).filter((value) => !theirs.enum?.includes(value));
  return [
    ...(mine.type === theirs.type ? [] : [`${path} is ${String(theirs.type)}, not ${String(mine.type)}`]),
    ...strange.map((value) => `${path} is never ${value}`),
    ...(path.startsWith("sent") && (mine.minimum ?? Infinity) < (theirs.minimum ?? -Infinity)
      ? [`${path} is at least ${theirs.minimum}`]
      : []),
  ];
}

describe("the schemas of Cloud Hypervisor's API", () => {
  it.each(ours)("%s is as the OpenAPI document has it", (name, schema) => {
    const shape = z.toJSONSchema(schema) as Shape;
    const theirs = document.components.schemas[name];
    if (theirs === undefined) throw new Error(`the document has no ${name}`);
    const isAnswer = ["VmInfo", "VmmPingResponse"].includes(name);
    expect(differences(shape, theirs, isAnswer ? "read" : "sent", document)).toEqual([]);
  });

  it("notice what the document does not have", () => {
    const strange = z.toJSONSchema(z.object({ boot_vcpus: z.string(), vcpus: z.int() })) as Shape;
    const theirs = { $ref: "#/components/schemas/CpusConfig" };
    expect(differences(strange, theirs, "sent", document)).toEqual([
      "sent.max_vcpus is required",
      "sent.boot_vcpus is integer, not string",
      "sent.vcpus is unknown",
    ]);
  });

  it.skipIf(!existsSync(whole))(
    "stand in a copy that is a part of the whole document (skipped without it)",
    () => {
      const all = load(readFileSync(whole, "utf8")) as Document;
      expect(all.components.schemas).toMatchObject(document.components.schemas);
      expect(all.paths).toMatchObject(document.paths);
    },
  );
});
