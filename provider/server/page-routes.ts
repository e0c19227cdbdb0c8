/** The status page at /, and what it asks for beyond Arrakis' API. The page is static: what it shows, its script fetches with the token. */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { consoleTail } from "./console-tail.js";
import { Content, type Route, route } from "./route.js";
import { consoleResponse } from "./wire.js";

const FOLDER = join(__dirname, "page");

/** Nothing but the page's own files and this server's answers; nobody may frame it. */
const headers = {
  "content-security-policy": [
    "default-src 'none'",
    ...["script-src", "style-src", "connect-src", "img-src"].map((what) => `${what} 'self'`),
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
  ].join("; "),
  "referrer-policy": "no-referrer",
  "x-frame-options": "DENY",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
} as const;

function file(path: string, name: string, type: string): Route {
  return route({
    method: "GET",
    path,
    summary: "A file of the status page",
    open: true,
    answer: async () => new Content(type, await readFile(join(FOLDER, name), "utf8"), headers),
  });
}

const MOST_LINES = 1000;
const DEFAULT_LINES = 100;

export const pageRoutes: readonly Route[] = [
  file("/", "index.html", "text/html; charset=utf-8"),
  file("/page/page.js", "page.js", "text/javascript; charset=utf-8"),
  file("/page/page.css", "page.css", "text/css; charset=utf-8"),
  file("/page/icon.svg", "icon.svg", "image/svg+xml"),
];

export const consoleRoute = route({
  method: "GET",
  path: "/v1/vms/{name}/console",
  summary: "The last lines that a guest has written to its serial console",
  query: z.object({
    lines: z.coerce
      .number()
      .int()
      .min(1)
      .max(MOST_LINES)
      .optional()
      .meta({ description: `How many at most; ${DEFAULT_LINES} unless given` }),
  }),
  response: consoleResponse,
  async answer({ vms }, { name, query }) {
    return { lines: await consoleTail(await vms.consoleLogOf(name), query.lines ?? DEFAULT_LINES) };
  },
});
