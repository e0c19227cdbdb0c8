/** A YAML file as a value, and where each part of it stands in the file. */

import type * as Yaml from "js-yaml";

/** Line and column of a character, both counted from 1. */
export interface Place {
  readonly line: number;
  readonly column: number;
}

/** One YAML document. */
export interface YamlSource {
  readonly value: unknown;
  /**
   * Where a part of the document stands, by its path of keys and list indexes; of one that is not there, or came by an alias, where the
   * nearest part around it stands.
   *
   * @param ofKey The place of the key itself instead of its value's.
   */
  placeOf(path: readonly PropertyKey[], ofKey?: boolean): Place;
}

/** No YAML, or not just one document. */
export class YamlError extends Error {
  override readonly name = "YamlError";

  /**
   * @param message What is wrong.
   * @param place Where; undefined when it is the file as a whole.
   */
  constructor(
    message: string,
    readonly place: Place | undefined,
    cause: unknown,
  ) {
    super(message, { cause });
  }
}

/**
 * Reads a YAML document (YAML 1.2, core schema: no tags that make code or dates).
 *
 * @throws YamlError
 */
export async function parseYaml(text: string): Promise<YamlSource> {
  // Loaded here: only programs with a YAML file pay for it.
  const yaml = await import("js-yaml");
  try {
    const value = yaml.load(text);
    const places = placesIn(yaml.parseEvents(text, {}), yaml.EVENT_ID, text, yaml.getScalarValue);
    return {
      value,
      placeOf: (path, ofKey = false) => placeAt(text, offsetOf(places, path, ofKey)),
    };
  } catch (error) {
    if (!(error instanceof yaml.YAMLException)) throw error;
    const { mark } = error;
    const place = mark && { line: mark.line + 1, column: mark.column + 1 };
    throw new YamlError(error.reason, place, error);
  }
}

/** Offsets of a part of a document in its text; the document as a whole has no key. */
interface Offsets {
  readonly key: number;
  readonly value: number;
}

/** Offsets by path, as JSON. */
type Places = ReadonlyMap<string, Offsets>;

/** A mapping or a list that is being read. */
interface Open {
  readonly path: readonly string[];
  readonly isMapping: boolean;
  /** Items of the list so far. */
  count: number;
  /** Of a mapping, the key whose value comes next. */
  key?: { readonly name: string; readonly at: number };
}

function placesIn(
  events: readonly Yaml.Event[],
  id: typeof Yaml.EVENT_ID,
  text: string,
  valueOf: typeof Yaml.getScalarValue,
): Places {
  const places = new Map<string, Offsets>();
  const open: (Open | undefined)[] = [];

  /** Notes a part, and tells its path. */
  const take = (at: number, scalar?: string): readonly string[] => {
    const around = open.at(-1);
    if (around === undefined) {
      places.set("[]", { key: at, value: at });
      return [];
    }
    if (around.isMapping && around.key === undefined) {
      around.key = { name: scalar ?? "?", at };
      return [...around.path, "?"];
    }
    const name = around.key?.name ?? String(around.count);
    around.count += 1;
    const path = [...around.path, name];
    // A key without a value has no place but its own.
    places.set(JSON.stringify(path), {
      key: around.key?.at ?? at,
      value: at === -1 ? (around.key?.at ?? 0) : at,
    });
    around.key = undefined;
    return path;
  };

  for (const event of events) {
    switch (event.type) {
      case id.DOCUMENT:
        open.push(undefined);
        break;
      case id.MAPPING:
      case id.SEQUENCE:
        open.push({ path: take(event.start), isMapping: event.type === id.MAPPING, count: 0 });
        break;
      case id.SCALAR:
        // A value in quotes begins with its quote.
        take(
          event.valueStart - Number(`"'`.includes(text[event.valueStart - 1] ?? " ")),
          valueOf(text, event),
        );
        break;
      case id.ALIAS:
        take(event.anchorStart - 1);
        break;
      case id.POP:
        open.pop();
        break;
    }
  }
  return places;
}

function offsetOf(places: Places, path: readonly PropertyKey[], ofKey: boolean): number {
  for (let length = path.length; length >= 0; length -= 1) {
    const found = places.get(JSON.stringify(path.slice(0, length).map(String)));
    if (found !== undefined) return ofKey || length < path.length ? found.key : found.value;
  }
  return 0;
}

function placeAt(text: string, offset: number): Place {
  const before = text.slice(0, offset).split("\n");
  return { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
}
