/** What a route is: what it takes, what it answers, what does it. */

import type { z } from "zod";
import type { Metrics } from "./metrics.js";
import type { Vms } from "./vms.js";

/** What the routes work on. */
export interface Served {
  readonly vms: Vms;
  readonly metrics: Metrics;
  /** Why this host cannot run a VM now; undefined when it can. */
  readonly unusable: () => Promise<string | undefined>;
}

/** One request, checked against the schemas of its route. */
export interface Call<Body = unknown, Query = unknown> {
  /** `{name}` of the path, as it came. */
  readonly name: string;
  readonly body: Body;
  readonly query: Query;
  /** For the log: a line that says that something was done, and by whom. */
  readonly tell: (what: string) => void;
}

/** An answer that is not made from an object. */
export class Content {
  constructor(
    readonly type: string,
    readonly text: string | Buffer,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {}
}

/** One route. */
export interface Route {
  readonly method: "GET" | "POST" | "PATCH" | "DELETE";
  /** Path with `{name}`, as OpenAPI writes it. */
  readonly path: string;
  readonly summary: string;
  /** Schema of the JSON body; absent where none is taken. */
  readonly body?: z.ZodType;
  /** Schema of the query; absent where none is taken. */
  readonly query?: z.ZodType;
  /** Schema of the answer; absent for one that is no JSON. */
  readonly response?: z.ZodType;
  /** Statuses of its failures beside those that all routes of its kind have, see openapi.ts. */
  readonly fails?: readonly number[];
  /** Present and true for what tells nothing of this host, so that no token is asked for. */
  readonly open?: true;
  /** Largest body, in bytes; the server's usual one when absent. */
  readonly bodyLimit?: number;
  readonly answer: (served: Served, call: Call) => Promise<unknown>;
}

/** A route whose body and query have the types of their schemas. */
export function route<Body extends z.ZodType = z.ZodUnknown, Query extends z.ZodType = z.ZodUnknown>(
  given: Omit<Route, "body" | "query" | "answer"> & {
    readonly body?: Body;
    readonly query?: Query;
    readonly answer: (served: Served, call: Call<z.output<Body>, z.output<Query>>) => Promise<unknown>;
  },
): Route {
  return given as Route;
}
